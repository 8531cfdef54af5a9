"""A project that is made from the README alone, with the package installed from its wheel."""

import re
import shutil
import subprocess

import pytest

from tests.plugin.outside import EXAMPLE, run_pytest
from tests.wheel import ROOT, environment_with_wheel

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = {"PYTHONPATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "", "VIRTUAL_ENV": ""}


@pytest.fixture
def environment(tmp_path_factory):
    return environment_with_wheel(tmp_path_factory)


def test_the_environment_has_the_package_of_the_wheel_and_its_command(environment, tmp_path):
    script = (
        "import resumecheck, importlib.resources as r; print(resumecheck.__file__, r.files('resumecheck') / 'schema')"
    )
    done = subprocess.run(
        [environment / "bin" / "python", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    file, schema = done.stdout.split()
    assert file.startswith(str(environment / "lib"))
    assert (environment / schema / "verdict-1.json").exists()
    command = [environment / "bin" / "resumecheck", "explain", "RC204"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "data-content" in done.stdout


def test_the_test_of_the_readme_passes_in_a_project_of_its_own(environment, tmp_path):
    (block,) = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "test_resume.py").write_text(block, encoding="utf-8")
    shutil.copy(EXAMPLE, tmp_path)
    python = environment / "bin" / "python"
    run_pytest(tmp_path, python=python, **ELSEWHERE).assert_outcomes(skipped=2)
    result = run_pytest(tmp_path, "--resumecheck", "-v", "-p", "no:xdist", python=python, **ELSEWHERE)
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line(f"*{ROOT}*")
