"""What a run reads is noted, and what of it belongs to the target is copied in the layout that it had."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.errors import UsageError
from resumecheck.repro.bundle import LARGEST_FILE, bundle_of, make_smaller
from resumecheck.repro.failure import Recipe
from resumecheck.repro.sources import Sources
from resumecheck.runs.opened import is_installed, read_opened
from resumecheck.runs.target import find_target

READS = """
import os, sys
from pathlib import Path
from resumecheck.runs.opened import note_opened

note_opened(Path("."))
sys.path.insert(0, "project")
import module
open("project/data.txt").close()
open("made.txt", "w").close()
open("made.txt").close()
if os.fork() == 0:
    open("project/of_a_child.txt").close()
    os._exit(0)
os.wait()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a package, a script beside it, data and a hidden directory; the working directory is its root."""
    for name, text in {
        "pkg/__init__.py": "",
        "pkg/model.py": "from pkg import layers\n",
        "pkg/layers.py": "",
        "scripts/train.py": "import pkg.model\n\n\ndef build(output_dir):\n    return output_dir\n",
        "data/rows.jsonl": "{}\n",
        ".git/HEAD": "ref",
        ".env": "KEY=secret",
    }.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def sources(project, *names, data=()):
    return Sources(tuple(project / name for name in names), tuple(Path(project, name) for name in data))


@pytest.mark.parametrize("compiled", [False, True])
def test_what_a_process_and_its_children_open_is_noted(tmp_path, compiled):
    (tmp_path / "project").mkdir()
    for name in ("module.py", "data.txt", "of_a_child.txt"):
        (tmp_path / "project" / name).touch()
    if compiled:
        subprocess.run([sys.executable, "-m", "compileall", "-q", "project"], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-c", READS], cwd=tmp_path, check=True)
    read, written = read_opened(tmp_path)
    names = [Path(path).name for path in read]
    assert any(name.startswith("module.") for name in names)
    assert {"data.txt", "of_a_child.txt", "made.txt"} < set(names)
    assert str(tmp_path / "made.txt") in written


def test_a_project_is_not_installed_and_packages_are(project):
    assert not is_installed(project / "scripts" / "train.py")
    assert is_installed(Path(os.__file__))
    assert is_installed(Path(pytest.__file__))
    assert is_installed(Path(find_target.__code__.co_filename))


def test_a_copy_keeps_the_layout_of_the_project(project):
    bundle = bundle_of(
        find_target("scripts/train.py:build"), sources(project, "scripts/train.py", "pkg/__init__.py", "pkg/model.py")
    )
    assert list(bundle.files) == ["scripts/train.py", "pkg/__init__.py", "pkg/model.py"]
    assert (bundle.target, bundle.path, bundle.home) == ("scripts/train.py:build", ("scripts", "."), ".")


def test_small_data_is_embedded_and_large_or_distant_data_is_named(project, tmp_path):
    (project / "data" / "large.bin").write_bytes(b"x" * (LARGEST_FILE + 1))
    (tmp_path / "distant.txt").write_text("x", encoding="utf-8")
    read = sources(
        project,
        "scripts/train.py",
        data=("data/rows.jsonl", "data/large.bin", ".git/HEAD", ".env", tmp_path / "distant.txt"),
    )
    bundle = bundle_of(find_target("scripts/train.py:build"), read)
    assert list(bundle.files) == ["scripts/train.py", "data/rows.jsonl"]
    outside = (tmp_path / "distant.txt", project / ".env", project / "data" / "large.bin")
    assert bundle.outside == tuple(map(str, outside))


def test_the_file_of_a_smaller_target_replaces_no_file_of_the_project(project):
    (project / "reduced.py").write_text("def build(output_dir, depth=2):\n    pass\n", encoding="utf-8")
    bundle = bundle_of(find_target("reduced.py:build"), sources(project, "reduced.py"))
    smaller = make_smaller(bundle, Recipe(2, 1, options=(("depth", 1),)))
    assert (smaller.target, list(smaller.files)) == ("reduced_.py:build", ["reduced_.py", "reduced.py"])


def test_two_roots_that_have_nothing_in_common_lie_beside_each_other(project, tmp_path):
    other = tmp_path / "elsewhere" / "lib"
    other.mkdir(parents=True)
    (other / "shared.py").touch()
    read = Sources((project / "scripts" / "train.py", other / "shared.py"), ())
    bundle = bundle_of(find_target("scripts/train.py:build"), read)
    assert list(bundle.files) == ["project/scripts/train.py", "lib/shared.py"]
    assert set(bundle.path) == {"project/scripts", "project", "lib"}
    assert bundle.home == "project"


def test_the_factory_of_an_installed_package_is_a_file_of_its_own(project):
    bundle = bundle_of(find_target("resumecheck.zoo.order:order_of_the_next_epoch"), Sources((), ()))
    assert (bundle.target, list(bundle.files)) == ("order.py:order_of_the_next_epoch", ["order.py"])


def test_too_much_source_is_refused(project, monkeypatch):
    monkeypatch.setattr("resumecheck.repro.bundle.LARGEST_SOURCE", 10)
    with pytest.raises(UsageError, match="too much for one script"):
        bundle_of(find_target("scripts/train.py:build"), sources(project, "scripts/train.py"))


@pytest.mark.parametrize("target", ["scripts/train.py:build", "scripts.train:build"])
def test_a_copy_imports_nothing_of_the_project_it_comes_from(project, tmp_path, target):
    bundle = bundle_of(
        find_target(target),
        sources(project, "scripts/train.py", "pkg/__init__.py", "pkg/model.py", "pkg/layers.py"),
    )
    copy = tmp_path / "copy"
    bundle.write(copy)
    code = "\n".join(
        [
            "import sys, pickle, os; sys.path.insert(0, os.getcwd())",
            "from resumecheck.runs.target import load_factory",
            f"load_factory(pickle.loads({pickle.dumps(bundle.as_target(copy))!r}))",
            "print(sys.modules['pkg.model'].__file__, os.getcwd())",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(copy / "pkg" / "model.py"), str(copy)]
