"""The loss of a batch in training is the plain formula over what the rows and options say."""

import math

import pytest
import torch

from tests.embedding import targets, tiny


@pytest.fixture
def trainer(encoder, tmp_path):
    """Build the trainer over a data set of the given rows, without dropout and in float64."""

    def build(rows, name="train.jsonl", **changes):
        directory = tmp_path / "set"
        if not directory.exists():
            directory.mkdir()
            (directory / "encoder").symlink_to(encoder)
        tiny.write_rows(directory / "data" / name, rows)
        built = targets.build(tmp_path / "out", directory=directory, train_data=directory / "data", **changes)
        built.model.double().eval()
        return built

    return build


def first_batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


def embedded(trainer, batch):
    with torch.no_grad():
        found = trainer.model(batch["queries"], batch["passages"])
    return found["queries"], found["passages"]


def cross_entropy(scores, place):
    top = max(scores)
    return top + math.log(math.fsum(math.exp(score - top) for score in scores)) - scores[place]


@pytest.mark.parametrize("marked", [True, False])
def test_marked_data_is_trained_without_in_batch_negatives(trainer, marked):
    built = trainer(tiny.rows(12), "a_no_in_batch_neg.jsonl" if marked else "a.jsonl", train_group_size=3)
    batch = first_batch(built)
    queries, passages = embedded(built, batch)
    scores = (queries @ passages.T / 0.02).tolist()
    total = 0.0
    for number, row in enumerate(scores):
        first = 3 * number
        total += cross_entropy(row[first : first + 3], 0) if marked else cross_entropy(row, first)
    assert float(built.compute_loss(built.model, batch).detach()) == pytest.approx(total / len(scores), abs=1e-10)
