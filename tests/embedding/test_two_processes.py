"""A run of two processes that is resumed is, on each of them, the uninterrupted run.

With negatives of all processes, scores of a teacher, batches of one data set, and accumulation over 3 batches where 7
make an epoch, so that each epoch ends with a step of one batch.
"""

import pytest
import torch

from resumecheck.embedding.arguments import parse_train_arguments
from resumecheck.embedding.train import build_trainer, prepare_output_dir
from resumecheck.state.streams import read_streams
from tests.embedding import ranks, tiny
from tests.embedding.test_corrupted_checkpoint import rewrite_manifest
from tests.embedding.test_exact_resume import differences

pytestmark = pytest.mark.slow

STEPS = 6
#: 3 steps to an epoch: in the middle of the first, at its end, in the middle of the second.
POINTS = (2, 3, 5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    tiny.write_encoder(directory / "encoder")
    scores = {"pos_scores": [2, 1], "neg_scores": [1, 0.5, 0, -0.5, -1]}
    for number, count in enumerate((24, 36)):
        rows = [{**row, **scores} for row in tiny.rows(count, seed=number)]
        tiny.write_rows(directory / "files" / f"{number}.jsonl", rows)
    return directory


def train(directory, output_dir, **changes):
    """Train; returns by process what it ends with, and its losses by the step that they are of."""
    plain = {
        "ddp_backend": "gloo",
        "negatives_cross_device": True,
        "same_dataset_within_batch": True,
        "knowledge_distillation": True,
        "gradient_accumulation_steps": 3,
        "cache_path": directory / "cache",
    }
    options = tiny.train_options(directory / "encoder", directory / "files", output_dir, **{**plain, **changes})

    def one(rank):
        arguments = parse_train_arguments(options)
        found = prepare_output_dir(arguments[2])
        trainer = build_trainer(*arguments)
        losses, compute_loss = [], trainer.compute_loss

        def recorded(*args, **kwargs):
            loss = compute_loss(*args, **kwargs)
            losses.append((trainer.state.global_step + 1, loss.item().hex()))
            return loss

        trainer.compute_loss = recorded
        trainer.train(resume_from_checkpoint=found and str(found))
        state = {
            "weights": trainer.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "schedule": trainer.lr_scheduler.state_dict(),
            "streams": [repr(read_streams()["rng-python"]), read_streams()["rng-torch"]],
            "numpy": read_streams()["rng-numpy"][1].tolist(),
            "step": trainer.state.global_step,
        }
        torch.save((state, losses), f"{output_dir}.{rank}.pt")

    assert ranks.run(one, directory / "rendezvous") == [0, 0]
    return [torch.load(f"{output_dir}.{rank}.pt", weights_only=False) for rank in range(ranks.WORLD_SIZE)]


@pytest.fixture(scope="module")
def uninterrupted(directory):
    """Of a run that saves nothing."""
    return train(directory, directory / "uninterrupted")


@pytest.fixture(scope="module")
def source(directory):
    """The output directory of the run whose checkpoints are resumed from."""
    train(directory, directory / "source", save_strategy="steps", save_steps=1)
    return directory / "source"


def different(uninterrupted, resumed, point):
    """The places where a process that was resumed after `point` has something else, as (rank, place)."""
    found = []
    for rank, ((state, losses), (state_of_resumed, losses_of_resumed)) in enumerate(
        zip(uninterrupted, resumed, strict=True)
    ):
        later = [(step, loss) for step, loss in losses if step > point]
        places = differences(
            {"state": state, "losses": later}, {"state": state_of_resumed, "losses": losses_of_resumed}
        )
        found += [(rank, place) for place in places]
    return found


def test_the_processes_have_batches_of_their_own_and_epochs_end_with_a_short_step(uninterrupted):
    (state, losses), (other, losses_of_other) = uninterrupted
    assert [step for step, _ in losses] == [1, 1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5, 5, 6]
    assert all(mine != others for mine, others in zip(losses, losses_of_other, strict=True))
    assert state["step"] == other["step"] == STEPS
    assert differences(state["weights"], other["weights"]) == []
    assert state["numpy"] == other["numpy"]
    assert differences(state["streams"], other["streams"]) == ["[1]"]  # torch's: dropout over texts of other lengths


@pytest.mark.parametrize("point", POINTS)
def test_each_process_ends_as_when_uninterrupted(uninterrupted, source, directory, point):
    resume = {"resume_from_checkpoint": source / f"checkpoint-{point}", "verify_resume": True}
    resumed = train(directory, directory / f"resumed-{point}", **resume)
    assert different(uninterrupted, resumed, point) == []


def test_the_streams_of_one_process_that_are_lost_are_noticed_on_both(uninterrupted, source, directory):
    path = source / "checkpoint-2" / "rng_state_1.pth"
    path.write_bytes((source / "checkpoint-1" / path.name).read_bytes())
    rewrite_manifest(path.parent)
    resumed = train(directory, directory / "mutant", resume_from_checkpoint=path.parent)
    found = different(uninterrupted, resumed, 2)
    assert (1, ".losses[0][1]") in found
    assert (0, ".losses[0][1]") in found  # negatives of the other process
    assert {rank for rank, place in found if place.startswith(".state.weights")} == {0, 1}
