"""What the user of the action has asked for: read from the environment, refused with one message, handed on as a file.

`action.yml` maps each input to a variable `INPUT_NAME`, so that no text of a user ever stands in a shell script. This
is its first step: a mistake is told before anything is fetched. `install.py` and `check.py` read the file it writes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # What this step needs of resumecheck imports nothing that is not in Python.

from resumecheck.errors import UsageError  # noqa: E402
from resumecheck.options import read_options  # noqa: E402

USAGE_STATUS = 2
OLDEST_PYTHON = (3, 10)
COMMANDS = ("verify", "pytest")
DEVICES = ("any", "cuda")
VERDICTS = ("diverged", "nondeterministic", "error")

#: A value of `resumecheck-version`: what the requirements, or an earlier step, have installed is used.
INSTALLED = "installed"

#: Options that the action gives itself, so that it finds what they write.
_OWN_OPTIONS = ("--json", "--html", "--resumecheck-html", "--junitxml", "--junit-xml")
_NAME, _VERSION = r"[A-Za-z0-9][A-Za-z0-9._-]*", r"[0-9][A-Za-z0-9.!+_-]*"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs, checked. Lists were one text each, split as a shell splits it; paths are absolute."""

    command: str
    target: str
    options: dict[str, str]  # steps, at, horizon and tolerance, those that were given
    args: list[str]
    fail_on: list[str]
    device: str
    working_directory: str
    report: str  # the directory of what the check writes
    report_name: str
    resumecheck_version: str
    extras: list[str]
    requirements: list[str]
    install: list[str]
    torch_version: str
    torch_index_url: str

    @classmethod
    def load(cls, file: str) -> Inputs:
        """The inputs that `main` has written."""
        return cls(**json.loads(Path(file).read_text(encoding="utf-8")))


def read_inputs(environment: Mapping[str, str]) -> Inputs:
    """The inputs out of the variables that `action.yml` sets.

    Raises:
        UsageError: an input cannot be used; the message names it.
    """
    given = {name[len("INPUT_") :]: text.strip() for name, text in environment.items() if name.startswith("INPUT_")}
    options = {name: given[name.upper()] for name in ("steps", "at", "horizon", "tolerance") if given[name.upper()]}
    read_options(options, "inputs of the action")
    folder = _folder(Path(environment["GITHUB_WORKSPACE"]), given["WORKING_DIRECTORY"])
    requirements = _words(given, "requirements")
    for file in requirements:
        if not (folder / file).is_file():
            raise UsageError(f"requirements: there is no file {file!r} in {folder}; give files from there, or nothing")
    report_name = _match(given, "report-name", _NAME, "letters, digits, '.', '_' and '-'")
    inputs = Inputs(
        command=_choice(given, "command", COMMANDS),
        target=given["TARGET"],
        options=options,
        args=_words(given, "args"),
        fail_on=_fail_on(given),
        device=_choice(given, "device", DEVICES),
        working_directory=str(folder),
        report=str(Path(environment["RUNNER_TEMP"]) / "resumecheck" / report_name),
        report_name=report_name,
        resumecheck_version=_version(given, "resumecheck-version", "a version such as 0.1.0, or installed", INSTALLED),
        extras=_extras(given),
        requirements=[str(folder / file) for file in requirements],
        install=_words(given, "install"),
        torch_version=_version(given, "torch-version", "a version such as 2.13.0, or nothing"),
        torch_index_url=_match(given, "torch-index-url", r"(https://\S+)?", "an address that begins with https://"),
    )
    _refuse_what_does_not_fit(inputs)
    return inputs


def _refuse_what_does_not_fit(inputs: Inputs) -> None:
    options = inputs.args[: inputs.args.index("--")] if "--" in inputs.args else inputs.args
    for option in _OWN_OPTIONS:
        if any(word == option or word.startswith(f"{option}=") for word in options):
            raise UsageError(
                f"args: {option} is given by the action, which uploads what it writes; leave it out, and find the "
                "files in the artifact"
            )
    if inputs.command == "verify" and not inputs.target and "--" not in inputs.args:
        raise UsageError(
            "target: found nothing, expected pkg.module:build or path/to/file.py:build\n"
            "give it, or a command after -- in args, or choose command: pytest"
        )
    if Path(inputs.report).exists():
        raise UsageError(
            f"report-name: {inputs.report_name!r} was used by an earlier step of this job; give each its own name"
        )


def _folder(workspace: Path, text: str) -> Path:
    folder = (workspace / text).resolve()
    if not folder.is_relative_to(workspace.resolve()) or not folder.is_dir():
        raise UsageError(
            f"working-directory: {text!r} is no directory of the repository; give one from its root on, and check "
            "the repository out before this action"
        )
    return folder


def _choice(given: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    text = _text(given, name)
    if text not in known:
        raise UsageError(f"{name}: {text!r} is not known; give one of: {', '.join(known)}")
    return text


def _match(given: Mapping[str, str], name: str, pattern: str, expected: str) -> str:
    text = _text(given, name)
    if not re.fullmatch(pattern, text):
        raise UsageError(f"{name}: {text!r} cannot be used; give {expected}")
    return text


def _version(given: Mapping[str, str], name: str, expected: str, *words: str) -> str:
    return _match(given, name, "|".join(["", *words, _VERSION]), expected)


def _words(given: Mapping[str, str], name: str) -> list[str]:
    try:
        return shlex.split(_text(given, name))
    except ValueError as error:
        raise UsageError(f"{name}: {_text(given, name)!r} cannot be split into words ({error}); close it") from error


def _fail_on(given: Mapping[str, str]) -> list[str]:
    verdicts = _text(given, "fail-on").replace(",", " ").split()
    if verdicts == ["none"]:
        return []
    unknown = [verdict for verdict in verdicts if verdict not in VERDICTS]
    if unknown or not verdicts:
        found = unknown[0] if unknown else ""
        raise UsageError(f"fail-on: {found!r} is not known; give some of: {', '.join(VERDICTS)}, or none")
    return verdicts


def _extras(given: Mapping[str, str]) -> list[str]:
    extras = _text(given, "extras").replace(",", " ").split()
    for extra in extras:
        if not re.fullmatch(_NAME, extra):
            raise UsageError(f"extras: {extra!r} is no name of an extra; give some such as report,embedding")
    return extras


def _text(given: Mapping[str, str], name: str) -> str:
    return given[name.upper().replace("-", "_")]


def cache_key(inputs: Inputs) -> tuple[str, str]:
    """The key of pip's cache, and the prefix that an older one may have: the same Python on the same system."""
    said = [inputs.resumecheck_version, *inputs.extras, *inputs.install, inputs.torch_version, inputs.torch_index_url]
    digest = hashlib.sha256("\0".join(said).encode())
    for file in [ROOT / "pyproject.toml", *map(Path, inputs.requirements)]:
        digest.update(file.read_bytes())
    version = ".".join(map(str, sys.version_info[:2]))
    prefix = f"resumecheck-pip-{platform.system()}-{platform.machine()}-{version}-"
    return prefix + digest.hexdigest()[:20], prefix


def write_outputs(outputs: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> None:
    """Set outputs of this step; none of them has more than one line."""
    with open(environment["GITHUB_OUTPUT"], "a", encoding="utf-8") as file:
        for name, value in outputs.items():
            if "\n" in value:
                raise UsageError(f"{name}: {value!r} has more than one line; give one")
            file.write(f"{name}={value}\n")


def run_step(step: Callable[[], int]) -> None:
    """Run a step of the action and end with its status; a mistake of the user is an annotation and status 2."""
    try:
        status = step()
    except UsageError as error:
        text = str(error).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        print(f"::error title=resumecheck%3A the action cannot run::{text}")
        status = USAGE_STATUS
    sys.exit(status)


def main() -> int:
    """Check the inputs, and write them for the steps that follow."""
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise UsageError(
            f"Python {platform.python_version()} is too old: resumecheck needs {oldest} or later; set python-version"
        )
    inputs = read_inputs(os.environ)
    cache = _choice({"CACHE": os.environ["INPUT_CACHE"].strip()}, "cache", ("true", "false"))
    pip = [sys.executable, "-m", "pip", "cache", "dir"]
    # pip may have been told to keep no cache: then there is none to restore.
    folder = subprocess.run(pip, capture_output=True, text=True, check=False) if cache == "true" else None
    Path(inputs.report).mkdir(parents=True)
    file = Path(f"{inputs.report}.json")
    file.write_text(json.dumps(dataclasses.asdict(inputs)), encoding="utf-8")
    key, prefix = cache_key(inputs)
    outputs = {"file": str(file), "report": inputs.report, "report-name": inputs.report_name}
    outputs |= {"cache-key": key, "cache-prefix": prefix}
    write_outputs({**outputs, "cache-path": folder.stdout.strip() if folder and folder.returncode == 0 else ""})
    return 0


if __name__ == "__main__":
    run_step(main)
