import shutil

import pytest

from tests.ci.composite import ROOT, run_action

EXAMPLE = ROOT / "tests" / "examples" / "masked_words.py"


@pytest.fixture
def workspace(tmp_path):
    """A checked-out repository with a target that resumes exactly, `build_keyed`, and one that does not, `build`."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    shutil.copy(EXAMPLE, folder / "train.py")
    return folder


@pytest.fixture
def act(workspace, tmp_path):
    """Run the action with what `with` would give; resumecheck is there already."""
    temp = tmp_path / "temp"
    temp.mkdir()

    def run(**given):
        given = {name.replace("_", "-"): text for name, text in given.items()}
        return run_action(workspace, temp, {"python-version": "", "resumecheck-version": "installed", **given})

    return run
