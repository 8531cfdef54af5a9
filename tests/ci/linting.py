"""actionlint and zizmor over workflows and actions, as they stand and as they would stand in a user's repository."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.ci.composite import ACTION, ROOT

BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXAMPLES = sorted((ROOT / "ci" / "examples").glob("*.yml"))
PAGE = ROOT / "docs" / "github-actions.md"
#: How the examples refer to what is published from this repository.
PLACEHOLDER = re.compile(r"OWNER/resumecheck/(ci|\.github/workflows/resumecheck\.yml)@0{40}")


def snippets():
    """The workflows in the documentation, each a whole one."""
    return re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def repository(folder):
    """A repository with this one's action and workflows, as if they were published, and no other workflow."""
    (folder / ".git").mkdir(parents=True)
    shutil.copytree(ROOT / "ci", folder / "ci")
    shutil.copytree(ROOT / ".github", folder / ".github")
    return folder


def add(folder, name, text):
    """Add a workflow in which the placeholder is the repository itself, so that actionlint knows its inputs."""
    file = folder / ".github" / "workflows" / name
    file.write_text(PLACEHOLDER.sub(r"$/\1", text), encoding="utf-8")
    return file


def actionlint(*files):
    """What actionlint says of workflows, a line for each finding."""
    # shellcheck and pyflakes are on some machines and not on others.
    command = [BIN / "actionlint", "-oneline", "-no-color", "-shellcheck=", "-pyflakes=", *files]
    done = subprocess.run(command, cwd=files[0].parent, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout.splitlines()


def zizmor(*files):
    """The names of what zizmor finds in workflows and actions, without a network."""
    command = [
        BIN / "zizmor",
        "--offline",
        "--no-config",
        "--quiet",
        "--strict-collection",
        "--format",
        "plain",
        "--color",
        "never",  # it colours what a machine with CI=true reads
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, *range(10, 15)}, done.stderr
    found = re.findall(r"^\w+\[([\w-]+)\]", done.stdout, flags=re.MULTILINE)
    assert bool(found) == bool(done.returncode), done.stdout
    return found


def as_workflow(action=ACTION):
    """The steps of a composite action as a workflow with the same inputs, which actionlint can look at."""
    described = yaml.safe_load(action.read_text(encoding="utf-8"))
    inputs = {name: {"type": "string", **said} for name, said in described["inputs"].items()}
    outputs = {name: said["value"] for name, said in described["outputs"].items()}
    job = {"runs-on": "ubuntu-latest", "outputs": outputs, "steps": described["runs"]["steps"]}
    workflow = {"on": {"workflow_call": {"inputs": inputs}}, "jobs": {"action": job}}
    return yaml.safe_dump(workflow, sort_keys=False)
