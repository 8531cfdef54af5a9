"""`--verify_resume` compares the first step with the one that the interrupted run made, and notices what files hide."""

import json
import shutil

import pytest
import torch

from resumecheck.embedding import checkpoint
from resumecheck.embedding.dataset import TrainDataset
from resumecheck.embedding.train import main
from resumecheck.embedding.trainer import EmbeddingTrainer
from tests.embedding import ranks, tiny
from tests.embedding.test_corrupted_checkpoint import rewrite_manifest

pytestmark = pytest.mark.slow

SAVING = {"save_strategy": "steps", "save_steps": 3, "max_steps": 8}
#: 3 is inside the first epoch.
NAME = "checkpoint-3"


@pytest.fixture(scope="module")
def trained(encoder, data, tmp_path_factory):
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained") / "out"
    assert main(tiny.train_options(encoder, data, directory, **SAVING)) == 0
    return directory


@pytest.fixture
def run(trained, tmp_path):
    """The output directory of a run that was interrupted after step 4 or later."""
    for name in (NAME, checkpoint.record_of(trained / NAME).name):
        copy = shutil.copytree if (trained / name).is_dir() else shutil.copy
        (tmp_path / "out").mkdir(exist_ok=True)
        copy(trained / name, tmp_path / "out" / name)
    return tmp_path / "out"


@pytest.fixture
def resume(encoder, data, run, capfd):
    """Resume the copy with `--verify_resume`; returns exit status and what was told."""

    def start(**changes):
        capfd.readouterr()
        options = {**SAVING, "resume_from_checkpoint": "latest", "verify_resume": True, **changes}
        status = main(tiny.train_options(encoder, data, run, **options))
        text = capfd.readouterr().err
        assert "Traceback" not in text
        return status, text

    return start


def alter(path, change):
    """Change the state in a file of a checkpoint and let its manifest vouch for the change."""
    from transformers.trainer import safe_globals

    with safe_globals():
        state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    rewrite_manifest(path.parent)


def a_moment_by_one_ulp(state):
    moment = state["state"][0]["exp_avg"]
    moment.copy_(torch.nextafter(moment, torch.full_like(moment, torch.inf)))


def a_step_count(state):
    state["state"][0]["step"] += 1


def the_rate(state):
    state["param_groups"][0]["lr"] *= 1.5


def the_stream_of_torch(state):
    state["cpu"] = torch.Generator().manual_seed(1).get_state()


def test_the_same_run_passes_and_says_so(resume, run, trained):
    status, text = resume()
    assert status == 0
    assert "the first step is compared with the recorded once it is made" in text
    assert "step 4 is the recorded, bit for bit: losses, weights" in text
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("optimizer.pt", a_moment_by_one_ulp, "the weights after it are not"),
        ("optimizer.pt", a_step_count, "the weights after it are not"),
        ("optimizer.pt", the_rate, "the weights after it are not"),
        ("rng_state.pth", the_stream_of_torch, "its loss is "),
    ],
)
def test_state_that_was_altered_together_with_its_manifest_is_noticed(resume, run, file, change, told):
    alter(run / NAME / file, change)
    assert checkpoint.defect(run / NAME) is None
    status, text = resume()
    assert status == 2
    message = text[text.index("resumecheck train: --verify_resume") :]
    assert f"the first step after {NAME} is not the one that the run made" in message
    assert told in message
    assert len(message.strip().splitlines()) <= 3
    assert [path.name for path in checkpoint.checkpoints_in(run)] == [NAME]


def test_the_alterations_pass_without_the_option(resume, run, trained):
    alter(run / NAME / "optimizer.pt", a_moment_by_one_ulp)
    assert resume(verify_resume=None)[0] == 0
    assert (run / "model.safetensors").read_bytes() != (trained / "model.safetensors").read_bytes()


def test_batches_that_only_look_like_the_recorded_are_noticed(resume, monkeypatch):
    """The digest of the next batch is of its samples; this data set changes them when training reads them."""
    announced = EmbeddingTrainer._next_batch
    get = TrainDataset.__getitem__

    def honest(trainer):
        with monkeypatch.context() as context:
            context.setattr(TrainDataset, "__getitem__", get)
            return announced(trainer)

    def swapped(data, index):
        sample = get(data, index)
        return sample._replace(passages=[sample.passages[0], *reversed(sample.passages[1:-1]), "ba be"])

    monkeypatch.setattr(EmbeddingTrainer, "_next_batch", honest)
    monkeypatch.setattr(TrainDataset, "__getitem__", swapped)
    status, text = resume()
    assert status == 2
    assert "the next batch is the recorded" in text
    assert "its loss is " in text


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("[{")])
def test_a_record_that_is_not_there_is_said(resume, run, trained, damage):
    damage(checkpoint.record_of(run / NAME))
    status, text = resume()
    assert status == 0
    assert "no first step is recorded" in text
    assert "bit for bit" not in text
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_resumed_run_does_not_vouch_for_itself(resume, run):
    checkpoint.record_of(run / NAME).unlink()
    resume()
    assert not checkpoint.record_of(run / NAME).exists()
    assert checkpoint.record_of(run / "checkpoint-6").exists()


def test_records_go_with_their_checkpoints(encoder, data, tmp_path):
    options = {**SAVING, "save_steps": 1, "save_total_limit": 2}
    assert main(tiny.train_options(encoder, data, tmp_path / "out", **options)) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob(".*")) == [".after-checkpoint-7.json"]
    shutil.rmtree(tmp_path / "out" / "checkpoint-7")
    assert [path.name for path in checkpoint.leftovers(tmp_path / "out")] == [".after-checkpoint-7.json"]


def test_a_step_saved_again_loses_the_record_of_the_other_run(resume, run):
    checkpoint.record_of(run / "checkpoint-6").write_text("[]")
    (run / "checkpoint-6").mkdir()
    resume(max_steps=6, verify_resume=None)
    assert checkpoint.defect(run / "checkpoint-6") is None
    assert not checkpoint.record_of(run / "checkpoint-6").exists()


def test_each_of_two_processes_is_compared(encoder, data, tmp_path, capfd):
    rendezvous = tmp_path / "rendezvous"

    def options(**changes):
        plain = {**SAVING, "gradient_accumulation_steps": 1, "ddp_backend": "gloo"}
        return tiny.train_options(encoder, data, tmp_path / "out", **{**plain, **changes})

    assert ranks.run(lambda _: main(options()), rendezvous) == [0, 0]
    record = json.loads(checkpoint.record_of(tmp_path / "out" / NAME).read_text())
    assert len(record) == 2
    assert record[0]["losses"] != record[1]["losses"]
    assert record[0]["weights"] == record[1]["weights"]
    again = options(resume_from_checkpoint=tmp_path / "out" / NAME, verify_resume=True)
    capfd.readouterr()
    assert ranks.run(lambda _: main(again), rendezvous) == [0, 0]
    assert capfd.readouterr().err.count("step 4 is the recorded, bit for bit") == 1
    alter(tmp_path / "out" / NAME / "rng_state_1.pth", the_stream_of_torch)
    assert ranks.run(lambda _: main(again), rendezvous) != [0, 0]
    assert "its loss of process 1 is " in capfd.readouterr().err
