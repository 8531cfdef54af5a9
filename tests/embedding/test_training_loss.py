"""The loss of a batch in training is the plain formula over what the rows and options say."""

import math

import pytest
import torch

from resumecheck.errors import UsageError
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
        options = {"train_data": directory / "data", "cache_path": tmp_path / "cache", **changes}
        built = targets.build(tmp_path / "out", directory=directory, **options)
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


def with_scores(rows):
    return [
        {
            **row,
            "pos_scores": [number % 3 for _ in row["pos"]],
            "neg_scores": [-place for place in range(len(row["neg"]))],
        }
        for number, row in enumerate(rows)
    ]


def test_scores_of_the_teacher_reach_the_loss_with_their_passages(trainer):
    built = trainer(with_scores(tiny.rows(12)), knowledge_distillation=True, train_group_size=3)
    batch = first_batch(built)
    queries, passages = embedded(built, batch)
    scores, teacher = (queries @ passages.T / 0.02).tolist(), batch["teacher_scores"].double().tolist()
    total = 0.0
    for number, row in enumerate(scores):
        own, taught = row[3 * number :][:3], teacher[3 * number :][:3]
        weights = [math.exp(-cross_entropy(taught, place)) for place in range(3)]
        total += cross_entropy(row, 3 * number)
        total += math.fsum(weights[place] * cross_entropy(own, place) for place in range(3))
    assert float(built.compute_loss(built.model, batch).detach()) == pytest.approx(total / len(scores), abs=1e-10)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_mrl": True, "mrl_dims": 4},
        {"kd_loss_type": "m3_kd_loss", "knowledge_distillation": True},
        {"knowledge_distillation": True},
        {"train_group_size": 2},
        {"temperature": 0.5},
    ],
)
def test_each_option_changes_the_loss(trainer, changes):
    rows = with_scores(tiny.rows(12))
    losses = []
    for options in ({}, changes):
        built = trainer(rows, **options)
        losses.append(float(built.compute_loss(built.model, first_batch(built)).detach()))
    assert abs(losses[0] - losses[1]) > 1e-6  # double precision: chance is below 1e-12


def test_no_more_texts_than_a_chunk_are_encoded_at_a_time(trainer):
    built, rows = trainer(tiny.rows(12), sub_batch_size=3, train_group_size=2), []
    built.model.encoder.register_forward_hook(lambda *_args, **_: rows.append(len(_args[-1].last_hidden_state)))
    built.compute_loss(built.model, first_batch(built))
    assert rows == [3, 1, 3, 3, 2]


@pytest.mark.parametrize("size", [3, -1])
def test_chunks_change_nothing_but_memory(trainer, size):
    found = []
    for options in ({}, {"sub_batch_size": size}):
        built = trainer(tiny.rows(12), **options)
        loss = built.compute_loss(built.model, first_batch(built))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in built.model.parameters() if p.grad is not None)])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_mrl": True}, "--use_mrl True and --mrl_dims N ... belong together"),
        ({"mrl_dims": 4}, "--use_mrl True and --mrl_dims N ... belong together"),
        ({"use_mrl": True, "mrl_dims": 17}, "--mrl_dims 17: the embeddings of the model have 16 dimensions"),
        ({"use_mrl": True, "mrl_dims": 0}, "--mrl_dims 0: expected numbers above 0"),
        ({"kd_loss_type": "m3_kd_loss"}, "--kd_loss_type m3_kd_loss has no effect without --knowledge_distillation"),
        ({"kd_loss_type": "mse"}, "--kd_loss_type: invalid choice: 'mse'"),
        ({"knowledge_distillation": True}, "train.jsonl:1: pos_scores, neg_scores: expected a score for each text"),
        ({"shuffle_ratio": 1.5}, "--shuffle_ratio 1.5: expected a number from 0 to 1"),
        ({"max_example_num_per_dataset": 0}, "--max_example_num_per_dataset 0: expected 1 or more"),
    ],
)
def test_what_cannot_work_is_refused_by_name(trainer, changes, message):
    with pytest.raises(UsageError) as error:
        trainer(tiny.rows(4), **changes)
    assert message in str(error.value)
