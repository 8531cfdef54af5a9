"""Every loss, with batches mixed or of one data set, resumes exactly: all pairs of choices, through the check."""

import functools
import itertools

import pytest

from tests.embedding import targets, tiny

LOSSES = {
    "contrastive": {},
    "kl_div": {"knowledge_distillation": True},
    "m3_kd_loss": {"knowledge_distillation": True, "kd_loss_type": "m3_kd_loss"},
    "matryoshka": {"use_mrl": True, "mrl_dims": 8, "knowledge_distillation": True},
    "grad_cache": {"sub_batch_size": 3},
}

#: Loss, batches of one data set, batches to a step, workers.
CASES = [
    ("contrastive", False, 1, 0),
    ("contrastive", True, 3, 2),
    ("kl_div", False, 3, 2),
    ("kl_div", True, 1, 0),
    ("m3_kd_loss", True, 3, 0),
    ("m3_kd_loss", False, 1, 2),
    ("matryoshka", True, 1, 2),
    ("matryoshka", False, 3, 0),
    ("grad_cache", False, 3, 0),
    ("grad_cache", True, 1, 2),
]

#: (Batches of one data set, batches to a step) -> steps to an epoch: 12 mixed batches, or 4 + 9 + 6.
STEPS = {(False, 1): 12, (False, 3): 4, (True, 1): 19, (True, 3): 7}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A plain file, and two of symmetric data with half the batch, one without in-batch negatives; all with scores."""
    directory = tmp_path_factory.mktemp("matrix")
    tiny.write_encoder(directory / "encoder")
    scores = {"pos_scores": [2, 1], "neg_scores": [1, 0.5, 0, -0.5, -1]}
    files = {
        "a": ({}, 18),
        "b_no_in_batch_neg": ({"type": "symmetric_class"}, 18),
        "c": ({"type": "symmetric_sts"}, 12),
    }
    for seed, (name, (fields, count)) in enumerate(files.items()):
        rows = [{**row, "pos": [text * 4 for text in row["pos"]], **scores} for row in tiny.rows(count, seed=seed)]
        tiny.write_rows(directory / "files" / f"{name}.jsonl", [{**row, **fields} for row in rows])
    return directory


def target(factory, directory, loss, same_dataset, accumulation, workers):
    return functools.partial(
        factory,
        directory=str(directory),
        train_data=str(directory / "files"),
        cache_path=str(directory / "cache"),
        same_dataset_within_batch=same_dataset,
        gradient_accumulation_steps=accumulation,
        dataloader_num_workers=workers,
        shuffle_ratio=0.5,
        **LOSSES[loss],
    )


def test_every_pair_of_choices_is_in_the_matrix():
    values = [LOSSES, (False, True), (1, 3), (0, 2)]
    for first, second in itertools.combinations(range(4), 2):
        pairs = {(case[first], case[second]) for case in CASES}
        assert pairs == set(itertools.product(values[first], values[second]))


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "same_dataset", "accumulation", "workers"), CASES)
def test_a_resume_is_exact(workbench, directory, loss, same_dataset, accumulation, workers):
    epoch = STEPS[same_dataset, accumulation]
    points = [epoch // 2, epoch, epoch + epoch // 2]
    verdict = workbench.verify(target(targets.build, directory, loss, same_dataset, accumulation, workers), at=points)
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert [point.step for point in verdict.resume_points] == points
    assert verdict.steps == 2 * epoch


def test_an_order_that_no_checkpoint_holds_is_found(workbench, directory):
    verdict = workbench.verify(target(targets.build_with_counted_epochs, directory, "contrastive", True, 3, 0), at=[9])
    (point,) = verdict.resume_points
    assert verdict.verdict == "diverged"
    assert (point.first_divergence.step, point.first_divergence.component) == (10, "data-order")
