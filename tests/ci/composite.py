"""Runs the `run` steps of a composite action as GitHub's runner does; a step that uses another action is recorded."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "ci" / "action.yml"
_TOKEN = re.compile(r"\s*(&&|==|!=|always\(\)|'(?:[^']|'')*'|[A-Za-z_][\w.-]*)")


@dataclasses.dataclass(frozen=True)
class Job:
    """What is left when the action has run."""

    status: int  # exit status of the first step that failed, else 0
    log: str
    summary: str
    outputs: dict[str, str]
    ran: list[str]  # the names of the steps that were not skipped
    used: dict[str, dict[str, str]]  # action -> its inputs, of the steps that use one

    def commands(self, name):
        """The workflow commands of a name, as whole lines."""
        return [line for line in self.log.splitlines() if line.startswith(f"::{name}")]


def run_action(workspace, temp, given, action=ACTION, path=None):
    """Run the action in a checked-out repository.

    Args:
        workspace: the repository.
        temp: the directory for temporary files, and the files that take outputs.
        given: input -> value, as under `with`.
        action: its `action.yml`.
        path: directory of `python3`, by default that of this Python.
    """
    described = yaml.safe_load(action.read_text(encoding="utf-8"))
    assert set(given) <= set(described["inputs"])
    inputs = {name: given.get(name, said.get("default", "")) for name, said in described["inputs"].items()}
    environment = {
        "PATH": f"{path or Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": os.environ.get("HOME", "/"),
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(workspace),
        "GITHUB_ACTION_PATH": str(action.parent),
        "RUNNER_TEMP": str(temp),
        "RUNNER_OS": "Linux",
    }
    files = {name: temp / f"_{name.lower()}" for name in ("OUTPUT", "ENV", "PATH", "STEP_SUMMARY")}
    steps, log, ran, used, status, summary = {}, "", [], {}, 0, ""
    for step in described["runs"]["steps"]:
        names = {"inputs": inputs, "steps": steps}
        condition = step.get("if", "true == true")
        if not evaluate(condition, names) or (status and "always()" not in condition):
            continue
        ran.append(step["name"])
        if "uses" in step:
            used[step["uses"].partition("@")[0]] = {key: fill(text, names) for key, text in step["with"].items()}
            continue
        assert step["shell"] == "bash"
        for file in files.values():
            file.write_text("", encoding="utf-8")
        script = temp / "_step.sh"
        script.write_text(fill(step["run"], names), encoding="utf-8")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=workspace,
            env={
                **environment,
                **{f"GITHUB_{name}": str(file) for name, file in files.items()},
                **{name: fill(text, names) for name, text in step.get("env", {}).items()},
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        log += done.stdout
        status = status or done.returncode
        summary += files["STEP_SUMMARY"].read_text(encoding="utf-8")
        lines = files["OUTPUT"].read_text(encoding="utf-8").splitlines()
        if "id" in step:
            steps[step["id"]] = dict(line.split("=", 1) for line in lines)
    outputs = {name: fill(said["value"], {"steps": steps}) for name, said in described["outputs"].items()}
    return Job(status, log, summary, outputs, ran, used)


def fill(text, names):
    """A text with its expressions replaced by their values."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(evaluate(found[1], names)), str(text))


def evaluate(expression, names):
    """The value of an expression out of the few forms that the action uses; anything else is an error of the test."""
    tokens = _TOKEN.findall(expression)
    assert "".join(tokens) == re.sub(r"\s", "", expression), expression
    if "&&" in tokens:
        at = tokens.index("&&")
        return evaluate(" ".join(tokens[:at]), names) and evaluate(" ".join(tokens[at + 1 :]), names)
    if len(tokens) == 3:
        left, right = (_value(token, names) for token in tokens[::2])
        return (left == right) == (tokens[1] == "==")
    (token,) = tokens
    return _value(token, names)


def _value(token, names):
    if token in {"always()", "true"}:
        return True
    if token.startswith("'"):
        return token[1:-1].replace("''", "'")
    context, *path = token.split(".")
    if context == "inputs":
        (name,) = path
        return names["inputs"][name]
    step, outputs, name = path
    assert (context, outputs) == ("steps", "outputs"), token
    return names["steps"].get(step, {}).get(name, "")
