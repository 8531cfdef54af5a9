"""A failing check becomes a script that fails alone, where nothing but the wheel is installed, and that mends.

With RESUMECHECK_REPRO=1 pip makes an environment of the wheel and its dependencies, and five mutants are tried in it;
RESUMECHECK_REPRO=PYTHON takes an environment that was made so.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.cli import main
from resumecheck.verdict import Divergence, Finding, ResumePoint, Settings, Verdict
from tests.wheel import environment_with_wheel

THOROUGH = os.environ.get("RESUMECHECK_REPRO")

#: The counter is lost on resume; it acts only from `depth` 1 on.
TRAIN = """
import functools
import json
from pathlib import Path

from transformers import Trainer

from parts.setup import arguments, model, rows


class Counts(Trainer):
    calls = 0

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        from parts.late import factor

        self.calls += 1
        outputs = model(**inputs)
        loss = outputs.loss * factor(self.calls, self.depth)
        return (loss, outputs) if return_outputs else loss


def make(output_dir, depth=4):
    trainer = Counts(model=model(), args=arguments(output_dir), train_dataset=rows())
    trainer.depth = depth * json.loads(Path(__file__).with_name("settings.json").read_text())["scale"]
    return trainer


build = functools.partial(make, depth=2)
"""
SETUP = """
import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments


def rows():
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(4, 60, (24, 8), generator=generator)
    return [{"input_ids": row, "labels": torch.tensor(number % 2)} for number, row in enumerate(words)]


def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=64, max_position_embeddings=8, **shape))


def arguments(output_dir):
    return TrainingArguments(
        output_dir=output_dir,
        num_train_epochs=4,
        per_device_train_batch_size=4,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
"""
FILES = {
    "train.py": TRAIN,
    "settings.json": '{"scale": 1}',
    "parts/__init__.py": "",
    "parts/setup.py": SETUP,
    "parts/late.py": "def factor(calls, depth):\n    return 1 + 0.01 * calls * depth\n",
}
MENDED = {"self.calls += 1": "self.calls = self.state.global_step + 1"}

#: What another machine may have found in it.
REPORT = Verdict(
    target="train.py:build",
    verdict="diverged",
    tolerance="bitwise",
    steps=7,
    steps_executed=40,
    reference_repeats=True,
    resume_points=(
        ResumePoint(2, "next", "equivalent"),
        ResumePoint(
            3,
            "end",
            "diverged",
            Divergence(4, "loss", "hidden-state", "loss", "", 0.7, 0.6),
            (Finding("RC501", "hidden-state", "confirmed", "trainer.calls: expected 3, got 0", "Keep it."),),
        ),
    ),
    versions={"torch": "2.9", "python": "3.10"},
    settings=Settings("next", "sigkill", {"max_grad_norm": "1.0"}),
)

#: target, component that is blamed.
MUTANTS = [
    ("resumecheck.zoo.optimizer:moments_rounded_to_bf16", "optimizer-moments"),
    ("resumecheck.zoo.order:sampler_starts_at_epoch_zero", "data-order"),
    ("resumecheck.zoo.streams:torch_stream_not_restored", "rng-torch"),
    ("tests.targets.mutants:saving_draws", "saving"),
    ("tests/targets/mutants.py:python_counter", "hidden-state"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python that has resumecheck from its wheel; a thorough one has nothing that pip did not install for that."""
    environment = environment_with_wheel(tmp_path_factory)
    if not THOROUGH:
        return environment / "bin" / "python"
    found = Path(THOROUGH)
    if THOROUGH == "1":
        directory = tmp_path_factory.mktemp("fresh")
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        found = directory / "bin" / "python"
    (wheel,) = (environment / "wheels").iterdir()
    pip = [found, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheel], cwd=found.parents[1], check=True)
    subprocess.run([*pip, "--no-deps", "--force-reinstall", wheel], cwd=found.parents[1], check=True)
    return found


def run_outside(python, *words, cwd):
    """Run Python in a directory that is not the repository, without a PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([python, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


def assert_only_the_wheel(python, elsewhere):
    """Nothing of the repository can be imported, and resumecheck is the installed one."""
    code = "import importlib.util as u; print(u.find_spec('tests'), u.find_spec('resumecheck').origin)"
    done = run_outside(python, "-c", code, cwd=elsewhere)
    found, origin = done.stdout.split()
    assert found == "None", done.stdout + done.stderr
    assert Path(origin).is_relative_to(python.parents[1])


def run_script(python, script, elsewhere, name="repro.py"):
    (elsewhere / name).write_text(script, encoding="utf-8")
    done = run_outside(python, name, cwd=elsewhere)
    return done.returncode, done.stdout + done.stderr


def assigned(script, name):
    """The value of a constant of the script."""
    for node in ast.parse(script).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise AssertionError(name)


def mended(script, changes):
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    return script


@pytest.mark.slow
def test_a_check_becomes_the_smallest_script_that_fails_alone_until_it_is_mended(
    tmp_path, monkeypatch, capsys, python, elsewhere
):
    for name, text in FILES.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "project")
    report = tmp_path / "verdict.json"
    report.write_text(json.dumps(REPORT.to_json()), encoding="utf-8")

    assert main(["repro", str(report), "--out", "out"]) == 0
    output = capsys.readouterr()
    assert "reproduced: diverged, RC501 hidden-state" in output.out
    assert "7 steps, resumed from 3 -> 2 steps, resumed from 1" in output.out
    assert "depth=1" in output.out
    assert "run alone in a fresh process, it ended with exit status 1" in output.out
    assert "the report was made with torch 2.9, here is" in output.err
    assert "check 1 of at most 20: as in the report (7 steps, resumed from 3): still RC501 hidden-state" in output.err

    script = Path("out", "repro.py").read_text(encoding="utf-8")
    assert assigned(script, "SETTINGS") == {"steps": 2, "at": [1]}
    assert assigned(script, "OUTSIDE") == []
    for name, text in FILES.items():
        assert f"FILES['{name}'] = " in script
        assert text in script
    assert "OPTIONS = {'depth': 1}" in script
    assert "ARGUMENTS = {'logging_strategy': 'no'}" in script

    issue = Path("out", "issue.md").read_text(encoding="utf-8")
    for part in ("## Expected", "## Observed", "**RC501 hidden-state** (confirmed", "torch 2.9.", "| steps | 7 | 2 |"):
        assert part in issue
    assert "trainer.calls" in issue
    assert script.rstrip() in issue

    assert_only_the_wheel(python, elsewhere)
    status, said = run_script(python, script, elsewhere)
    assert status == 1, said
    assert "The failure is still there: diverged RC501 hidden-state." in said
    status, said = run_script(python, mended(script, MENDED), elsewhere)
    assert status == 0, said
    assert "The failure is gone." in said


@pytest.mark.slow
@pytest.mark.skipif(not THOROUGH, reason="five mutants take many minutes; set RESUMECHECK_REPRO=1")
@pytest.mark.parametrize(("target", "component"), MUTANTS, ids=[component for _, component in MUTANTS])
def test_a_mutant_becomes_a_script_whose_twin_is_equivalent(
    tmp_path, monkeypatch, capsys, python, elsewhere, target, component
):
    monkeypatch.chdir(ROOT)
    report, out = tmp_path / "verdict.json", tmp_path / "out"
    assert main(["verify", target, "--steps", "12", "--at", "9", "--json", str(report)]) == 1
    assert main(["repro", str(report), "--out", str(out)]) == 0
    assert f" {component}\n" in capsys.readouterr().out
    script = (out / "repro.py").read_text(encoding="utf-8")
    assert_only_the_wheel(python, elsewhere)
    status, said = run_script(python, script, elsewhere)
    assert status == 1, said
    name = target.rpartition(":")[2]
    twin, count = re.subn(rf"(\.|:){name}(?=['\n])", rf"\1{name}_twin", script)
    assert count
    status, said = run_script(python, twin, elsewhere)
    assert status == 0, said


@pytest.mark.slow
@pytest.mark.skipif(not THOROUGH, reason="set RESUMECHECK_REPRO=1")
def test_a_report_that_does_not_fail_here_gives_no_script(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    report, out = tmp_path / "verdict.json", tmp_path / "out"
    assert main(["verify", MUTANTS[0][0], "--steps", "5", "--at", "4", "--json", str(report)]) == 1
    assert main(["repro", str(report), "--target", f"{MUTANTS[0][0]}_twin", "--out", str(out)]) == 1
    assert "not reproduced: the report says diverged, RC401 optimizer-moments" in capsys.readouterr().out
    assert not out.exists()
