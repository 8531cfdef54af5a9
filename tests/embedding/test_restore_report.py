"""What a resumed run says about itself, and that what it says is so."""

import json
import shutil

import pytest
import torch

from resumecheck.embedding import checkpoint, restore
from resumecheck.embedding.train import main
from tests.embedding import tiny

pytestmark = pytest.mark.slow

PARTS = ("weights", "optimizer", "scheduler", "random streams", "position in the data")
IGNORED = "ignored: the checkpoint's value is used"


@pytest.fixture(scope="module")
def trained(encoder, data, tmp_path_factory):
    """A run of 8 steps with a checkpoint after the fourth and the last."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained") / "out"
    assert main(tiny.train_options(encoder, data, directory, save_strategy="steps", save_steps=4)) == 0
    return directory


@pytest.fixture
def resumed(trained, encoder, data, tmp_path, capfd):
    """Resume a copy of the run from step 4 with these changes; returns exit status, report, final weights."""
    run = tmp_path / "out"
    shutil.copytree(trained / "checkpoint-4", run / "checkpoint-4")

    def resume(*, remove=(), **changes):
        for name in remove:
            (run / "checkpoint-4" / name).unlink()
        plain = {"save_strategy": "steps", "save_steps": 4, "resume_from_checkpoint": "latest"}
        capfd.readouterr()
        status = main(tiny.train_options(encoder, data, run, **{**plain, **changes}))
        text = capfd.readouterr().err
        assert "Traceback" not in text
        weights = run / "model.safetensors"
        return status, text, weights.read_bytes() if weights.exists() else None

    return resume


@pytest.fixture(scope="module")
def reference(trained):
    return (trained / "model.safetensors").read_bytes()


def statuses(text):
    lines = [line.strip() for line in text.splitlines()]
    found = {part: line.removeprefix(part).split()[0] for line in lines for part in PARTS if line.startswith(part)}
    assert set(found) == set(PARTS), text
    return found


def test_a_resume_prints_one_table_of_what_it_restored(resumed, reference):
    status, text, weights = resumed()
    assert status == 0
    assert statuses(text) == dict.fromkeys(PARTS, "restored")
    assert text.count("restored from the checkpoint of step 4:") == 1
    assert "step 4, epoch 1.00; the next batch is the recorded" in text
    assert weights == reference


def test_a_new_run_prints_none(encoder, data, tmp_path, capfd):
    assert main(tiny.train_options(encoder, data, tmp_path / "out", max_steps=1)) == 0
    assert "restored" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "effect", "same"),
    [
        ({"learning_rate": 5e-3}, IGNORED, True),
        ({"weight_decay": 0.5}, IGNORED, True),
        ({"adam_beta1": 0.5}, IGNORED, True),
        ({"adam_epsilon": 0.1}, IGNORED, True),
        ({"save_steps": 3}, IGNORED, True),
        ({"logging_steps": 3}, IGNORED, True),
        ({"dataloader_num_workers": 1}, "harmless", True),
        ({"save_total_limit": 1}, "harmless", True),
        ({"run_name": "other"}, "harmless", True),
        ({"seed": 4}, "changes the trajectory", False),
        ({"temperature": 0.1}, "changes the trajectory", False),
        ({"warmup_steps": 7}, "changes the trajectory", False),
        ({"num_train_epochs": 3}, "changes the trajectory", False),
        ({"max_grad_norm": 0.1}, "changes the trajectory", False),
        ({"train_group_size": 2}, "changes the trajectory", False),
        ({"passage_max_len": 4}, "changes the trajectory", False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_argument_that_differs_is_named_and_does_what_is_said(resumed, reference, changes, effect, same):
    status, text, weights = resumed(**changes)
    ((name, value),) = changes.items()
    assert status == 0
    (line,) = [line for line in text.splitlines() if f"--{name} was" in line]
    assert f"now {json.dumps(value)}" in line or float(value) == float(line.rpartition("now ")[2].partition(":")[0])
    assert line.endswith(f": {effect}")
    assert (weights == reference) is same


def test_save_steps_that_are_ignored_save_where_the_checkpoint_says(resumed, tmp_path):
    resumed(save_steps=3)
    assert [path.name for path in checkpoint.checkpoints_in(tmp_path / "out")] == ["checkpoint-4", "checkpoint-8"]


def test_arguments_of_the_schedule_change_the_scheduler(resumed):
    _, text, _ = resumed(warmup_steps=7)
    assert statuses(text)["scheduler"] == "changed"
    assert "other rates to come: --warmup_steps" in text


def test_another_next_batch_is_a_changed_position(resumed):
    _, text, _ = resumed(seed=4)
    assert statuses(text)["position in the data"] == "changed"


# --- missing state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "file", "part"),
    [
        ("optimizer", "optimizer.pt", "optimizer"),
        ("scheduler", "scheduler.pt", "scheduler"),
        ("rng", "rng_state.pth", "random streams"),
    ],
)
def test_only_the_option_leads_past_a_missing_file(resumed, reference, kind, file, part):
    status, text, _ = resumed(remove=[file])
    assert status == 2
    assert f"{file} is missing" in text
    for other in {"optimizer", "scheduler", "rng"} - {kind}:
        assert resumed(allow_missing_state=other)[0] == 2
    status, text, weights = resumed(allow_missing_state=kind)
    assert status == 0
    assert statuses(text) == {name: "absent" if name == part else "restored" for name in PARTS}
    assert weights != reference


def test_a_learning_rate_goes_on_where_the_optimizer_is_missing(resumed, trained, tmp_path):
    resumed(remove=["optimizer.pt"], allow_missing_state="optimizer")

    def rates(directory):
        history = json.loads((directory / "checkpoint-8" / "trainer_state.json").read_text())["log_history"]
        return [entry["learning_rate"] for entry in history if "loss" in entry]

    assert rates(tmp_path / "out") == rates(trained)


@pytest.mark.parametrize("file", ["model.safetensors", "trainer_state.json", "manifest.json", "config.json"])
def test_no_option_leads_past_other_missing_files(resumed, file):
    status, text, _ = resumed(remove=[file], allow_missing_state="optimizer")
    assert status == 2
    assert f"{file} is missing" in text


def test_an_altered_file_is_refused_though_it_might_be_missing(resumed, tmp_path):
    (tmp_path / "out" / "checkpoint-4" / "optimizer.pt").write_bytes(b"")
    status, text, _ = resumed(allow_missing_state="optimizer")
    assert status == 2
    assert "optimizer.pt has 0 bytes" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allow_missing_state": "weights"}, "--allow_missing_state weights: expected one or more of optimizer, sched"),
        ({"allow_missing_state": "rng", "resume_from_checkpoint": None}, "--allow_missing_state is for a resumed run"),
        ({"verify_resume": True, "resume_from_checkpoint": None}, "--verify_resume is for a resumed run"),
        ({"optim": "sgd"}, "its optimizer or learning rate does not fit this run's"),
    ],
)
def test_wrong_usage_is_one_message(resumed, changes, message):
    status, text, _ = resumed(**changes)
    assert status == 2
    assert message in text


# --- --verify_resume -------------------------------------------------------------------------------------------------


def test_verify_resume_lets_the_same_run_pass(resumed, reference):
    status, _, weights = resumed(verify_resume=True, learning_rate=5e-3, dataloader_num_workers=1)
    assert (status, weights) == (0, reference)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"temperature": 0.1}, "--temperature"),
        ({"seed": 4}, "position in the data (changed), --seed"),
        ({"remove": ["optimizer.pt"], "allow_missing_state": "optimizer"}, "optimizer (absent)"),
    ],
)
def test_verify_resume_refuses_another_run_and_says_why(resumed, changes, named):
    status, text, weights = resumed(verify_resume=True, **changes)
    assert status == 2
    assert f"--verify_resume: this would not be the same run: {named}" in text
    assert weights is None


def test_what_is_ignored_counts_again_where_the_optimizer_is_missing():
    assert restore.effect_of("learning_rate", set()) == IGNORED
    assert restore.effect_of("learning_rate", {"optimizer"}) == "changes the trajectory"


def test_states_are_compared_bit_for_bit():
    assert restore.same({"a": [torch.tensor([float("nan")])]}, {"a": [torch.tensor([float("nan")])]})
    assert not restore.same({"a": torch.tensor([0.0])}, {"a": torch.tensor([-0.0])})
    assert not restore.same({"a": 1}, {"a": 1, "b": 2})
