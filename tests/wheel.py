"""The wheel of this repository in an environment of its own, as a user has it: nothing of the repository is importable.

`environment_with_wheel` makes a cheap one, which shares the packages of the present environment, or, where a test is
to see a machine that has nothing else, one into which pip installs the wheel and its dependencies.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build_wheel(directory: Path) -> Path:
    """The wheel of the working tree."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "-c", ROOT / "constraints.txt", "-w", directory, ROOT],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
    )
    (wheel,) = directory.glob("resumecheck-*.whl")
    return wheel


def environment_with_wheel(directory: Path, *, fresh: bool = False) -> Path:
    """The Python of a new environment in `directory` that has resumecheck from its wheel.

    Args:
        directory: an empty directory.
        fresh: whether pip installs the dependencies too, which takes minutes; else those of the present environment
            are seen, without what its .pth files add.
    """
    wheel = build_wheel(directory)
    subprocess.run([sys.executable, "-m", "venv", *([] if fresh else ["--without-pip"]), directory / "env"], check=True)
    python = directory / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", python]
    if fresh:
        subprocess.run([*pip, "install", "-c", ROOT / "constraints.txt", wheel], cwd=directory, check=True)
        return python
    subprocess.run([*pip, "install", "--no-deps", wheel], cwd=directory, check=True)
    (site_packages,) = (directory / "env" / "lib").glob("python*/site-packages")
    # A path that a .pth file names is searched, but its own .pth files are not read: no editable install comes with it.
    (site_packages / "present.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def run_outside(python: Path, *words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a directory that is not the repository, without the present PYTHONPATH."""
    return subprocess.run(
        [str(word) for word in (python, *words)],
        cwd=cwd,
        env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
