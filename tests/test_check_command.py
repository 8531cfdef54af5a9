"""Commands that know nothing of resumecheck: ordinary scripts, right and with a mistake, judged from the shell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.checkpoints.values import component_of
from resumecheck.cli import main
from resumecheck.compare.checkpoint_files import compare_outputs
from resumecheck.errors import UsageError
from resumecheck.runs.command import read_command

SCRIPTS = Path(__file__).parent / "targets" / "scripts"

#: A mistake in a script -> what is found. Each is a line that is left out, or another one in its place.
MISTAKES = {
    "the schedule is not loaded": ('    scheduler.load_state_dict(state["scheduler"])\n', "", "lr-scheduler"),
    "the data starts over": ("        if number < step:\n            continue\n", "", "data-position"),
    "the file is ignored": ("if options.resume is not None:", "if False:", "counters"),
}


def plain(script, *options):
    resume = ["--checkpoint", "state-{step}.pt", "--resume-option", "--resume {checkpoint}"]
    return ["verify", *options, *resume, "--", sys.executable, str(script), "--out", "{out}"]


def with_trainer(script, *options, trainer=()):
    words = ["--output_dir", "{out}", "--save_steps", "8", "--num_train_epochs", "2", "--use_cpu", "true"]
    words += ["--per_device_train_batch_size", "4", "--warmup_steps", "3", "--report_to", "none", *trainer]
    resume = ["--resume-option", "--resume_from_checkpoint {checkpoint}"]
    return ["verify", *options, *resume, "--", sys.executable, str(script), *words]


def verdict_of(arguments, tmp_path):
    file = tmp_path / "verdict.json"
    status = main([arguments[0], "--json", str(file), *arguments[1:]])
    return status, json.loads(file.read_text())


@pytest.mark.slow
def test_a_plain_script_is_equivalent_from_the_shell(tmp_path):
    file = tmp_path / "verdict.json"
    words = plain(SCRIPTS / "plain_torch.py", "--at", "4", "--interrupt", "sigkill", "--json", str(file))
    done = subprocess.run([sys.executable, "-m", "resumecheck", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("EQUIVALENT  ")
    verdict = json.loads(file.read_text())
    assert [point["compared"] for point in verdict["resume_points"]] == [8]
    assert (verdict["steps"], verdict["steps_executed"]) == (12, 12 + 12 + 4 + 8)
    assert [point["latent"] for point in verdict["resume_points"]] == [[]]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_a_plain_script_is_named(tmp_path, mistake):
    line, instead, component = MISTAKES[mistake]
    text = (SCRIPTS / "plain_torch.py").read_text()
    assert line in text
    (tmp_path / "script.py").write_text(text.replace(line, instead))
    status, verdict = verdict_of(plain(tmp_path / "script.py", "--at", "4"), tmp_path)
    (point,) = verdict["resume_points"]
    assert (status, verdict["verdict"], point["verdict"]) == (1, "diverged", "diverged")
    assert (point["findings"][0]["component"], point["findings"][0]["status"]) == (component, "suspected")
    if component != "lr-scheduler":  # The schedule steps once with the optimizer's restored rate.
        assert point["first_divergence"]["step"] == 5


@pytest.mark.slow
def test_a_script_with_a_trainer_is_equivalent(tmp_path):
    status, verdict = verdict_of(with_trainer(SCRIPTS / "with_trainer.py"), tmp_path)
    assert (status, verdict["verdict"]) == (0, "equivalent"), verdict
    # No --at: the checkpoints that the script leaves.
    assert [point["step"] for point in verdict["resume_points"]] == [8]


@pytest.mark.slow
def test_a_script_with_a_trainer_that_saves_weights_alone_is_not(tmp_path):
    script = with_trainer(SCRIPTS / "with_trainer.py", "--at", "8", trainer=["--save_only_model", "true"])
    status, verdict = verdict_of(script, tmp_path)
    (point,) = verdict["resume_points"]
    assert (status, point["verdict"]) == (1, "diverged")
    blamed = [finding["component"] for finding in point["findings"]]
    assert blamed[0] == "optimizer-moments"
    assert "optimizer-step" in blamed
    assert point["first_divergence"]["step"] == 9


@pytest.mark.slow
def test_a_resumed_command_that_fails_is_a_resume_failure(tmp_path):
    (tmp_path / "script.py").write_text(
        (SCRIPTS / "plain_torch.py").read_text().replace('step = state["step"]', 'step = state["steps"]')
    )
    status, verdict = verdict_of(plain(tmp_path / "script.py", "--at", "4"), tmp_path)
    (found,) = verdict["resume_points"][0]["findings"]
    assert (status, found["component"]) == (1, "resume-failure")
    assert "KeyError: 'steps'" in found["message"]


@pytest.mark.slow
def test_a_command_that_does_not_repeat_itself_cannot_be_judged(tmp_path):
    text = (SCRIPTS / "plain_torch.py").read_text()
    (tmp_path / "script.py").write_text(text.replace("torch.manual_seed(1)", "torch.seed()"))
    status, verdict = verdict_of(plain(tmp_path / "script.py", "--at", "4"), tmp_path)
    assert (status, verdict["verdict"]) == (3, "nondeterministic")


def test_a_command_that_fails_is_an_error(tmp_path):
    (tmp_path / "script.py").write_text("raise SystemExit('there is no data')\n")
    status, verdict = verdict_of(plain(tmp_path / "script.py", "--at", "4"), tmp_path)
    assert (status, verdict["verdict"]) == (4, "error")
    assert "there is no data" in verdict["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--resume-option=-r", "--", "true"], "the command has no {out}"),
        (["verify", "--", "true", "{out}"], "--resume-option is missing"),
        (["verify", "--"], "after -- a command is expected"),
        (["verify", "train.py:build", "--", "true", "{out}"], "TARGET, or -- and a command, not both"),
        (
            ["verify", "--steps", "4", "--resume-option=-r", "--", "true", "{out}"],
            "--steps: a command is checked as it",
        ),
        (["verify", "--resume-option=-r", "--", "no-such-program", "{out}"], "'no-such-program' cannot be started"),
        (["verify", "--resume-option=-r", "--", "true", "{out}"], "no optimizer step of the command was seen"),
    ],
)
def test_wrong_usage_of_a_command_is_one_message(capsys, arguments, message):
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_a_resumed_command_gets_its_words():
    command = read_command(["train", "--out={out}"], "--from '{checkpoint}' --at {step}", None)
    assert command.arguments(Path("/o")) == ["train", "--out=/o"]
    assert command.arguments(Path("/o"), 4) == ["train", "--out=/o", "--from", "/o/checkpoint-4", "--at", "4"]
    with pytest.raises(UsageError, match=r"has no \{out\}"):
        read_command(["train"], "--resume", None)


@pytest.mark.parametrize(
    ("file", "path", "component"),
    [
        ("state.pt", "optimizer.state.0.exp_avg", "optimizer-moments"),
        ("state.pt", "optimizer.state.0.step", "optimizer-step"),
        ("state.pt", "optimizer.param_groups.0.lr", "optimizer-hyperparameters"),
        ("state.pt", "scheduler.last_epoch", "lr-scheduler"),
        ("sched-scheduler.pt", "last_epoch", "lr-scheduler"),
        ("state.pt", "np_rng.1", "rng-numpy"),
        ("rng.pt", "cpu", "rng-torch"),
        ("state.pt", "step", "counters"),
        ("net.pt", "encoder.weight", "weights"),
    ],
)
def test_a_value_in_a_file_belongs_to_a_component(file, path, component):
    assert component_of(file, path) == component


def test_files_that_differ_are_told_by_their_first_value(tmp_path):
    import torch

    for name, number in (("one", 1.0), ("other", 2.0)):
        (tmp_path / name).mkdir()
        torch.save({"model": {"w": torch.tensor(number), "b": torch.zeros(3)}}, tmp_path / name / "state.pt")
    (tmp_path / "one" / "optimizer.pt").write_bytes(b"")
    missing, weights = compare_outputs(tmp_path / "one", tmp_path / "other")
    assert (missing.component, missing.expected, missing.got) == ("checkpoint-files", "a file", "none")
    assert (weights.component, weights.name, len(weights.places)) == ("weights", "model.w", 1)
    assert (weights.expected, weights.got) == ("float32[]=1.0", "float32[]=2.0")
