"""The workflows, the action and the examples, looked at by actionlint and zizmor, and what these must find."""

import re

import pytest
import yaml

from tests.ci.composite import ACTION, ROOT
from tests.ci.linting import (
    EXAMPLES,
    PLACEHOLDER,
    WORKFLOWS,
    actionlint,
    add,
    as_workflow,
    repository,
    snippets,
    zizmor,
)

NAMES = ["trainer.yml", "sentence_transformers.yml", "nightly_gpu.yml"]
WRITTEN = [*WORKFLOWS, *EXAMPLES, ACTION]


def load(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def uses(text):
    """The reference and the comment of each line that uses an action or a workflow."""
    return re.findall(r"^\s*(?:- )?uses: (\S+)(?: # (.+))?$", text, flags=re.MULTILINE)


def test_actionlint_finds_nothing(tmp_path):
    folder = repository(tmp_path / "repository")
    files = [folder / ".github" / "workflows" / file.name for file in WORKFLOWS]
    files += [add(folder, f"example_{file.name}", file.read_text(encoding="utf-8")) for file in EXAMPLES]
    files += [add(folder, f"snippet_{n}.yml", text) for n, text in enumerate(snippets())]
    files.append(add(folder, "action.yml", as_workflow()))
    assert len(files) >= 2 + len(NAMES) + 3
    assert actionlint(*files) == []


def test_zizmor_finds_nothing(tmp_path):
    folder = repository(tmp_path / "repository")
    workflows = folder / ".github" / "workflows"
    for name, text in [
        *((f"example_{file.name}", file.read_text(encoding="utf-8")) for file in EXAMPLES),
        *((f"snippet_{n}.yml", text) for n, text in enumerate(snippets())),
    ]:
        (workflows / name).write_text(text, encoding="utf-8")
    assert zizmor(*sorted(workflows.glob("*.yml")), folder / "ci" / "action.yml") == []


MUTANTS = {
    "a template injection in a workflow": (
        "run: make test",
        'run: make test BRANCH="${{ github.head_ref }}"',
        "template-injection",
    ),
    "an action by its tag": (
        "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2",
        "actions/checkout@v6",
        "unpinned-uses",
    ),
    "credentials left for later steps": ("        with:\n          persist-credentials: false\n", "", "artipacked"),
    "more permissions than it needs": (
        "permissions:\n  contents: read",
        "permissions: write-all",
        "excessive-permissions",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_zizmor_finds(mutant, tmp_path):
    before, after, finding = MUTANTS[mutant]
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert before in text
    file = add(repository(tmp_path / "repository"), "ci.yml", text.replace(before, after))
    assert finding in zizmor(file)


def test_zizmor_finds_a_template_injection_in_the_action(tmp_path):
    file = repository(tmp_path / "repository") / "ci" / "action.yml"
    run = 'run: python3 "$GITHUB_ACTION_PATH/check.py"'
    text = file.read_text(encoding="utf-8")
    assert run in text
    file.write_text(text.replace(run, f"{run} ${{{{ inputs.args }}}}"), encoding="utf-8")
    assert "template-injection" in zizmor(file)


WRONG = {
    "an input that the action lacks": ("steps: ", "stepz: ", 'input "stepz" is not defined in action "resumecheck"'),
    "an output that the action lacks": (
        "resumecheck.outputs.artifact-url",
        "resumecheck.outputs.artefact",
        'property "artefact" is not defined',
    ),
    "a label that no runner has": (
        "runs-on: ubuntu-latest",
        "runs-on: ubuntu-lastest",
        'label "ubuntu-lastest" is unknown',
    ),
    "an expression that cannot be": (
        "${{ vars.TORCH_CPU_INDEX_URL }}",
        "${{ varz.TORCH }}",
        'undefined variable "varz"',
    ),
}


@pytest.mark.parametrize("mutant", WRONG)
def test_actionlint_finds(mutant, tmp_path):
    before, after, finding = WRONG[mutant]
    name = "sentence_transformers.yml" if "output" in mutant else "trainer.yml"
    text = (ROOT / "ci" / "examples" / name).read_text(encoding="utf-8")
    assert before in text
    folder = repository(tmp_path / "repository")
    assert finding in "\n".join(actionlint(add(folder, "mutant.yml", text.replace(before, after))))


def test_actionlint_finds_an_input_that_the_called_workflow_lacks(tmp_path):
    (text,) = [text for text in snippets() if "workflows/resumecheck.yml@" in text]
    folder = repository(tmp_path / "repository")
    found = actionlint(add(folder, "mutant.yml", text.replace("runner: ", "runners: ")))
    assert 'input "runners" is not defined' in "\n".join(found)


def test_actionlint_finds_an_input_that_the_action_itself_lacks(tmp_path):
    folder = repository(tmp_path / "repository")
    text = as_workflow().replace("inputs.steps }}", "inputs.stepz }}")
    assert 'property "stepz" is not defined' in "\n".join(actionlint(add(folder, "action.yml", text)))


def test_every_input_of_an_example_is_one_of_the_action():
    known = set(load(ACTION)["inputs"])
    called = set(load(ROOT / ".github" / "workflows" / "resumecheck.yml")[True]["workflow_call"]["inputs"])
    seen = 0
    for text in [*(file.read_text(encoding="utf-8") for file in EXAMPLES), *snippets()]:
        for job in yaml.safe_load(text)["jobs"].values():
            for step in [job, *job.get("steps", [])]:
                if found := PLACEHOLDER.fullmatch(step.get("uses", "")):
                    assert set(step.get("with", {})) <= (known if found[1] == "ci" else called)
                    seen += 1
    assert seen >= len(NAMES) + 3


def test_the_called_workflow_has_the_inputs_of_the_action_and_passes_them_on():
    action, workflow = load(ACTION)["inputs"], load(ROOT / ".github" / "workflows" / "resumecheck.yml")
    inputs = workflow[True]["workflow_call"]["inputs"]
    assert set(inputs) - set(action) == {"runner", "timeout-minutes"}
    typed = {name: {**said, "type": "string"} for name, said in action.items()}
    typed["cache"] |= {"type": "boolean", "default": True}
    assert typed == {name: inputs[name] for name in action}
    assert workflow["jobs"]["check"]["steps"][-1]["with"] == {name: f"${{{{ inputs.{name} }}}}" for name in action}


def test_each_input_of_the_action_reaches_a_step_through_the_environment():
    described = load(ACTION)
    mapped = {}
    for step in described["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        mapped |= step.get("env", {})
    expected = {f"INPUT_{name.upper().replace('-', '_')}": f"${{{{ inputs.{name} }}}}" for name in described["inputs"]}
    del expected["INPUT_PYTHON_VERSION"]  # for the step that sets Python up
    assert expected.items() <= mapped.items()


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: file.name)
def test_every_action_is_pinned_to_a_commit_with_its_version(file):
    found = uses(file.read_text(encoding="utf-8"))
    assert found
    for reference, comment in found:
        if reference.startswith("$/"):
            continue
        if PLACEHOLDER.fullmatch(reference):
            assert comment == "a commit of resumecheck"
        else:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", reference), reference
            assert re.fullmatch(r"v\d+\.\d+\.\d+", comment), reference


def test_an_action_has_one_pin_in_all_files():
    pins = {}
    for text in [*(file.read_text(encoding="utf-8") for file in WRITTEN), *snippets()]:
        for reference, comment in uses(text):
            if "@" in reference:
                pins.setdefault(reference.partition("@")[0], set()).add((reference, comment))
    assert {len(found) for found in pins.values()} == {1}
    assert {"actions/checkout", "actions/setup-python", "actions/cache", "actions/upload-artifact"} <= set(pins)


def test_the_examples_are_the_documented_ones():
    page = (ROOT / "docs" / "github-actions.md").read_text(encoding="utf-8")
    assert sorted(file.name for file in EXAMPLES) == sorted(NAMES)
    for name in NAMES:
        assert f"../ci/examples/{name}" in page


def test_the_page_names_every_input_and_output_of_the_action():
    page = (ROOT / "docs" / "github-actions.md").read_text(encoding="utf-8")
    described = load(ACTION)
    for name in [*described["inputs"], *described["outputs"]]:
        assert f"`{name}`" in page, name
