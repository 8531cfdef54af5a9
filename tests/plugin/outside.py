"""pytest as a project that uses the plugin runs it: in a process and a directory of its own, once for several tests."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "masked_words.py"
PROJECT = Path(__file__).parent / "project"


def run_pytest(directory, *arguments, python=sys.executable, **environment):
    """Run it, and leave what it wrote and its exit status beside the tests."""
    done = subprocess.run(
        [python, "-m", "pytest", *arguments],
        cwd=directory,
        env={**os.environ, "COLUMNS": "160", "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    (directory / "stdout").write_text(done.stdout, encoding="utf-8")
    (directory / "stderr").write_text(done.stderr, encoding="utf-8")
    (directory / "status").write_text(str(done.returncode))
    return ran(directory)


def ran(directory):
    """What a run has left, as pytester gives it."""
    texts = [(directory / name).read_text(encoding="utf-8").splitlines() for name in ("stdout", "stderr")]
    return pytest.RunResult(int((directory / "status").read_text()), *texts, 0.0)


def outcomes(result):
    """Test -> outcome, from the lines of `-v`."""
    words = [line.split() for line in result.outlines]
    return {line[0]: line[1] for line in words if len(line) > 1 and line[1] in ("PASSED", "FAILED", "ERROR", "SKIPPED")}


def properties(junit):
    """Test -> its JUnit properties."""
    cases = ET.parse(junit).iter("testcase")
    return {case.get("name"): {one.get("name"): one.get("value") for one in case.iter("property")} for case in cases}
