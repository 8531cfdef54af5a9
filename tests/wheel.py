"""The package as a user gets it: built as a wheel and installed into an environment of its own.

The environment sees the packages of the present one, so that torch is not installed again, but not this checkout: its
`resumecheck` is the one of the wheel.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.made_once import made_once

ROOT = Path(__file__).parents[1]


def environment_with_wheel(tmp_path_factory):
    """The directory of the environment, with `bin/python` and `bin/resumecheck`; made once in a test run."""
    return made_once(tmp_path_factory, "environment-with-wheel", make_environment)


def make_environment(directory):
    """Build the wheel into `directory/wheels`, and make an environment with it in `directory`."""
    wheels = directory / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run(*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ROOT)
    (wheel,) = wheels.iterdir()
    _run(sys.executable, "-m", "venv", "--without-pip", directory)
    python = directory / "bin" / "python"
    _run(*pip, "--python", python, "install", "--no-index", "--no-deps", wheel)
    # Afterwards, since pip leaves out what seems to be installed. A .pth file in a directory that a .pth file names is
    # not read, so the editable installation of this checkout stays unseen.
    (site,) = (directory / "lib").glob("python*/site-packages")
    (site / "present.pth").write_text("".join(f"{path}\n" for path in _site_packages()), encoding="utf-8")


def _site_packages():
    return dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session", name="environment_with_wheel")
def environment_with_wheel_fixture(tmp_path_factory):
    """`environment_with_wheel` as a fixture: import it into a conftest.py or a test file."""
    return environment_with_wheel(tmp_path_factory)
