"""Run `resumecheck verify` or `pytest --resumecheck`, and turn what it wrote into a verdict and an exit status.

resumecheck itself prints the annotations and writes the summary of the job, from the variables that GitHub sets.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from inputs import Inputs, UsageError, run_step, write_outputs

from resumecheck.verdict import EXIT_STATUS

_STATUS: dict[str, int] = {**EXIT_STATUS}  # of `verify`, by verdict

#: The worst first.
_WORST = ("error", "diverged", "nondeterministic", "equivalent")
_TESTS_FAILED = 1  # an exit status of pytest
_CUDA = "import torch, sys; sys.exit(not torch.cuda.is_available() or print(torch.cuda.get_device_name()))"


def command(inputs: Inputs) -> list[str]:
    """The words after `python -m`."""
    report = Path(inputs.report)
    if inputs.command == "verify":
        options = [f"--{name}={value}" for name, value in inputs.options.items()]
        files = ["--json", str(report / "verdict.json"), "--html", str(report / "report.html")]
        return ["resumecheck", "verify", *([inputs.target] if inputs.target else []), *options, *files, *inputs.args]
    options = [f"--resumecheck-{name}={value}" for name, value in inputs.options.items()]
    target = [f"--resumecheck-target={inputs.target}"] if inputs.target else []
    files = [f"--resumecheck-html={report}", f"--junitxml={report / 'junit.xml'}"]
    return ["pytest", "--resumecheck", *target, *options, *files, *inputs.args]


def outcome_of_verify(inputs: Inputs, status: int) -> tuple[str, int]:
    """The verdict, empty where there was none, and the status of this step, which is 0 where it is let pass."""
    file = Path(inputs.report) / "verdict.json"
    verdict = json.loads(file.read_text(encoding="utf-8"))["verdict"] if file.is_file() else ""
    # Another status than the verdict's own says that something else failed as well, writing the report say.
    return verdict, 0 if verdict in _let_pass(inputs) and status == _STATUS[verdict] else status


def outcome_of_pytest(inputs: Inputs, status: int) -> tuple[str, int]:
    """The worst verdict of the tests that failed, and the status of this step.

    It is 0 where nothing but verdicts that are let pass made tests fail: a test that failed without one counts. Where
    no test failed the verdict is `equivalent`, since a test that passes may have expected a divergence.
    """
    file = Path(inputs.report) / "junit.xml"
    tests = list(ElementTree.parse(file).iter("testcase")) if file.is_file() else []
    failed = [_worst(test) for test in tests if test.find("failure") is not None or test.find("error") is not None]
    if status == _TESTS_FAILED and failed:
        let_pass = all(verdict in _let_pass(inputs) for verdict in failed)
        return min(filter(None, failed), key=_WORST.index, default=""), 0 if let_pass else status
    return "equivalent" if status == 0 and any(map(_worst, tests)) else "", status


def _worst(test: ElementTree.Element) -> str:
    """The worst verdict that a test has recorded, empty where it has none."""
    found = [mark.get("value", "") for mark in test.iter("property") if mark.get("name") == "resumecheck.verdict"]
    return min(found, key=_WORST.index, default="")


def _let_pass(inputs: Inputs) -> set[str]:
    return set(_STATUS) - {"equivalent", *inputs.fail_on}


def main() -> int:
    """Run the check and set the outputs."""
    inputs = Inputs.load(os.environ["RESUMECHECK_INPUTS"])
    if inputs.device == "cuda" and _python(["-c", _CUDA], inputs) != 0:
        raise UsageError(
            "device: found no GPU that torch can use, expected cuda\n"
            "give a runner that has one, and a torch-index-url with torch's build for it"
        )
    words = command(inputs)
    print(shlex.join(words), flush=True)
    status = _python(["-m", *words], inputs)
    verify = inputs.command == "verify"
    verdict, ended = outcome_of_verify(inputs, status) if verify else outcome_of_pytest(inputs, status)
    write_outputs({"verdict": verdict, "exit-status": str(status)})
    if not verdict:
        _tell_of_no_verdict(inputs, status)
    elif status != ended:
        print(f"::warning title=resumecheck%3A {verdict}, let pass::fail-on does not name {verdict}")
    return ended


def _tell_of_no_verdict(inputs: Inputs, status: int) -> None:
    level, why = "error", f"{inputs.command} ended with exit status {status} and no verdict: the log says why"
    if status == 0:
        level = "warning"
        why = "pytest passed, and no test left a verdict: only the fixture resumecheck and targets leave one"
    print(f"::{level} title=resumecheck%3A no verdict::{why}")


def _python(words: list[str], inputs: Inputs) -> int:
    return subprocess.run([sys.executable, *words], cwd=inputs.working_directory, check=False).returncode


if __name__ == "__main__":
    run_step(main)
