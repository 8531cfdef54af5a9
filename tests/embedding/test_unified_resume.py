"""With M3's heads a resume is exact too, before and after self-distillation starts: through the check."""

import functools

import pytest

from tests.embedding import targets, tiny

pytestmark = pytest.mark.slow

SCORES = {"pos_scores": [2, 1], "neg_scores": [1, 0.5, 0, -0.5, -1]}

#: The sum of the scores teaches from the fifth step of 8 on; a resume is before, just before, at and after that.
START, POINTS = 3, [2, 3, 4, 6]

#: Every loss, mixed batches and batches of one data set, and what only a few options use.
CASES = [
    {},
    {"knowledge_distillation": True, "sub_batch_size": 3, "fix_encoder": True, "dataloader_num_workers": 2},
    {"knowledge_distillation": True, "kd_loss_type": "m3_kd_loss", "same_dataset_within_batch": True, "max_steps": 8},
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A file of plain rows and one without in-batch negatives, all with scores of a teacher."""
    directory = tmp_path_factory.mktemp("unified")
    tiny.write_encoder(directory / "encoder")
    for seed, (name, count) in enumerate({"a": 18, "b_no_in_batch_neg": 8}.items()):
        rows = [{**row, **SCORES} for row in tiny.rows(count, seed=seed)]
        tiny.write_rows(directory / "files" / f"{name}.jsonl", rows)
    return directory


def target(factory, directory, **changes):
    return functools.partial(
        factory,
        directory=str(directory),
        train_data=str(directory / "files"),
        cache_path=str(directory / "cache"),
        unified_finetuning=True,
        colbert_dim=8,
        use_self_distill=True,
        self_distill_start_step=START,
        **changes,
    )


@pytest.mark.parametrize("changes", CASES, ids=lambda changes: "-".join(changes) or "contrastive")
def test_a_resume_is_exact(workbench, directory, changes):
    verdict = workbench.verify(target(targets.build, directory, **changes), at=POINTS)
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert [point.step for point in verdict.resume_points] == POINTS
    assert verdict.steps == 8


def test_a_start_that_is_counted_in_an_attribute_is_found(workbench, directory):
    verdict = workbench.verify(target(targets.build_with_counted_batches, directory), at=[4])
    (point,) = verdict.resume_points
    assert verdict.verdict == "diverged"
    assert point.first_divergence.step == 5
