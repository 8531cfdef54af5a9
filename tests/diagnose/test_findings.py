"""The table of findings: complete, in its families, with a page that is up to date and examples that are true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.check import Workbench
from resumecheck.diagnose.findings import BY_CODE, BY_COMPONENT, FAMILIES, KINDS, finding
from resumecheck.report import findings_page
from resumecheck.state.components import COMPONENTS

ROOT = Path(__file__).parents[2]

FAMILY_OF = {
    "1": "weights buffers loss-parameters dtype checkpoint-files resume-failure counters",
    "2": "data-order data-position data-content",
    "3": "rng-python rng-numpy rng-torch rng-cuda",
    "4": "optimizer-moments optimizer-step optimizer-hyperparameters lr-scheduler grad-scaler gradient-accumulation",
    "5": "hidden-state callbacks",
    "6": "saving nondeterminism",
    "7": "arguments",
}

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)


def test_every_component_has_exactly_one_kind():
    assert sorted(kind.component for kind in KINDS) == sorted(COMPONENTS)


def test_codes_are_unique_and_in_order():
    codes = [kind.code for kind in KINDS]
    assert codes == sorted(set(codes))


def test_codes_are_in_the_family_of_their_component():
    assert list(FAMILIES) == list(FAMILY_OF)
    for kind in KINDS:
        assert re.fullmatch(r"RC[1-7]\d\d", kind.code)
        assert kind.component in FAMILY_OF[kind.code[2]].split()


def test_a_finding_has_the_code_and_the_advice_of_its_component():
    found = finding("data-content", "confirmed", "step 5", step=5)
    assert (found.code, found.advice) == ("RC204", BY_COMPONENT["data-content"].advice)
    assert found.message == "the same samples arrive with other content: step 5"
    assert found.evidence == {"step": 5}
    assert finding("data-content", "suspected", "").message == "the same samples arrive with other content"


@each_kind
def test_a_kind_says_everything(kind):
    for text in (kind.title, kind.advice, kind.meaning, *kind.causes):
        assert text == " ".join(text.split())
    assert not kind.title.endswith(".")
    assert all(text.endswith(".") for text in (kind.advice, kind.meaning, *kind.causes))
    assert len(kind.causes) >= 2
    assert kind.example != kind.cure


@each_kind
def test_causes_name_public_threads_of_known_projects(kind):
    if kind.component not in ("arguments", "nondeterminism"):
        assert "#" in " ".join(kind.causes)
    for cause in kind.causes:
        linked = findings_page._THREADS.sub(findings_page._links, cause)
        assert linked.count("](https://github.com/") == cause.count("#")


@each_kind
def test_example_and_cure_are_short_python(kind):
    for code in (kind.example, kind.cure):
        compile(code, kind.code, "exec")
        assert len(code.splitlines()) <= 32
        assert all(len(line) <= 110 for line in code.splitlines())


@each_kind
def test_example_and_cure_are_formatted_and_use_what_they_import(kind, tmp_path):
    (tmp_path / "example.py").write_text(kind.example, encoding="utf-8")
    (tmp_path / "cure.py").write_text(kind.cure, encoding="utf-8")
    ruff = [Path(sys.executable).with_name("ruff"), "--quiet", "--isolated"]
    for command in (["format", "--check", "--line-length=110"], ["check", "--select=F,I,B,E"]):
        options = ["--config=line-length=110"] if command[0] == "check" else []
        done = subprocess.run(
            [*ruff[:1], *command, *options, *ruff[1:], str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@each_kind
def test_explain_prints_all_of_a_kind(kind):
    text = findings_page.as_text(kind)
    words = " ".join(text.split())
    for part in (kind.code, kind.component, kind.title, kind.meaning, kind.advice, *kind.causes):
        assert part.replace(" - ", " ") in words.replace(" - ", " ")
    assert "".join(kind.example.split()) in "".join(text.split())
    assert "".join(kind.cure.split()) in "".join(text.split())


def test_a_kind_is_found_by_code_or_component_in_any_case():
    for name in ("RC204", "rc204", "data-content", "Data-Content"):
        assert findings_page.find(name) is BY_CODE["RC204"]


def test_the_page_in_docs_is_up_to_date():
    page = (ROOT / findings_page.PAGE).read_text(encoding="utf-8")
    assert page == findings_page.page(), "run: python -m resumecheck.report.findings_page"


# The examples are true: code -> the lines that put an example into a trainer of the zoo's base set-up.
SET_UPS = {
    "RC101": "return make_trainer(output_dir, {class_})",
    "RC102": """
        model = make_model()
        model.classifier = torch.nn.Sequential(model.classifier, Centred(3))
        return make_trainer(output_dir, model=model)""",
    "RC103": "return make_trainer(output_dir, TrainsItsLoss, loss=Temperature())",
    "RC104": "return make_trainer(output_dir, {class_})",
    "RC105": """
        if "KeepsCheckpointsSmall" in globals():
            return make_trainer(output_dir, callbacks=[KeepsCheckpointsSmall()])
        return make_trainer(output_dir, save_total_limit=arguments.save_total_limit)""",
    "RC106": "return make_trainer(output_dir, callbacks=[WatchesTheRate()])",
    "RC107": """
        callbacks = [StopsAtItsBudget()]
        return make_trainer(output_dir, callbacks=callbacks, include_num_input_tokens_seen="all")""",
    "RC201": "return make_trainer(output_dir, {class_})",
    "RC202": "return make_trainer(output_dir, ignore_data_skip=arguments.ignore_data_skip)",
    "RC204": """
        rows = Masked(Rows())
        callbacks = [SetsEpoch(rows)] if "SetsEpoch" in globals() else []
        return make_trainer(output_dir, rows=rows, callbacks=callbacks)""",
    "RC301": "return make_trainer(output_dir, OwnStreams, model=make_model(DrawsFromPython))",
    "RC302": "return make_trainer(output_dir, MixesUp)",
    "RC303": "return make_trainer(output_dir, Seeds)",
    "RC304": "return make_trainer(output_dir, OwnStreams, use_cpu=False)",
    "RC401": "return make_trainer(output_dir, {class_})",
    "RC402": "return make_trainer(output_dir, {class_})",
    "RC403": "return make_trainer(output_dir, callbacks=[RaisesDecay()], weight_decay=0.1)",
    "RC404": "return make_trainer(output_dir, {class_})",
    "RC405": """
        class Scales({class_}, ScalesGradients):
            pass

        return make_trainer(output_dir, Scales)""",
    "RC501": "return make_trainer(output_dir, RampsUp)",
    "RC502": """
        callbacks = [StopsAfter()]
        return make_trainer(output_dir, callbacks=callbacks, restore_callback_states_from_checkpoint=True)""",
    "RC601": "return make_trainer(output_dir, NotesASample)",
    "RC602": """
        names = [f"row {index}" for index in range(28)]
        rows = {name: Rows()[index] for index, name in enumerate(names)}
        return make_trainer(output_dir, rows=Distinct(rows, names + names))""",
    "RC701": "return make_trainer(output_dir, max_grad_norm=arguments(output_dir).max_grad_norm)",
}
IMPORTS = """
import torch
from resumecheck.zoo.scaler import ScalesGradients
from resumecheck.zoo.setups import Rows, make_model, make_trainer
from resumecheck.zoo.streams import DrawsFromPython
"""
#: Of a missing file, what it held is named first.
FOUND_AS = {"RC105": "RC401"}
AT = [9]  # in the second epoch, after warmup


@pytest.fixture(scope="module")
def workbench():
    with Workbench() as bench:
        yield bench


def target(tmp_path, kind, code):
    *_, class_ = ["", *re.findall(r"^class (\w+)", code, flags=re.MULTILINE)]
    lines = SET_UPS[kind.code].replace("{class_}", class_).strip("\n")
    if not lines.startswith(" "):
        lines = " " * 8 + lines
    body = "\n".join(line[4:] for line in lines.splitlines())
    path = tmp_path / f"{kind.code.lower()}.py"
    path.write_text(f"{code}\n{IMPORTS}\ndef build(output_dir):\n{body}\n", encoding="utf-8")
    return f"{path}:build"


def skip_without_a_gpu(kind):
    if kind.component == "rng-cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def test_every_example_but_the_loop_of_its_own_is_checked():
    assert set(BY_CODE) - set(SET_UPS) == {"RC406"}


each_set_up = pytest.mark.parametrize("kind", [BY_CODE[code] for code in SET_UPS], ids=lambda kind: kind.code)


@pytest.mark.slow
@each_set_up
def test_the_check_finds_an_example_under_its_code(kind, workbench, tmp_path):
    skip_without_a_gpu(kind)
    verdict = workbench.verify(target(tmp_path, kind, kind.example), steps=12, at=AT)
    found = [*verdict.findings, *(each for point in verdict.resume_points for each in point.findings)]
    assert found, verdict.error or verdict.verdict
    assert found[0].code == FOUND_AS.get(kind.code, kind.code), found[0].message
    assert kind.code in [each.code for each in found]


@pytest.mark.slow
@each_set_up
def test_the_check_finds_nothing_in_a_cure(kind, workbench, tmp_path):
    skip_without_a_gpu(kind)
    verdict = workbench.verify(target(tmp_path, kind, kind.cure), steps=12, at=AT)
    assert verdict.equivalent, verdict.error or verdict.resume_points


@pytest.mark.parametrize(("field", "equal"), [("example", False), ("cure", True)])
def test_gradients_in_an_accumulation_window_are_lost_by_the_example_only(field, equal):
    import torch

    scope = {}
    exec(getattr(BY_CODE["RC406"], field), scope)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))
            self.loss = None

        def forward(self, x):
            self.loss = (self.weight * x).square().sum()
            return self

    batches = [{"x": torch.rand(3, generator=torch.Generator().manual_seed(number))} for number in range(24)]
    saved = {}

    def run(weight, first, save):
        model = Model()
        with torch.no_grad():
            model.weight.copy_(weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scope["train"](model, optimizer, batches, lambda number: save(number, model), first)
        return model.weight.detach()

    end = run(torch.ones(3), 0, lambda number, model: saved.setdefault(number, model.weight.detach().clone()))
    number = min(saved)
    resumed = run(saved[number], number, lambda number, model: None)
    assert torch.equal(end, resumed) is equal
