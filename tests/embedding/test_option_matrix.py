"""Every loss with every family of models, with batches mixed or of one data set, resumes exactly: through the check.

`make test` takes cases that have every pair of choices; `RESUMECHECK_MATRIX=1` takes all of them.
"""

import functools
import itertools
import os

import pytest

from tests.embedding import targets, tiny

LOSSES = {
    "contrastive": {},
    "kl_div": {"knowledge_distillation": True},
    "m3_kd_loss": {"knowledge_distillation": True, "kd_loss_type": "m3_kd_loss"},
    "matryoshka": {"use_mrl": True, "mrl_dims": 8, "knowledge_distillation": True},
    "grad_cache": {"sub_batch_size": 3},
}

FAMILIES = {
    "encoder": {"sentence_pooling_method": "mean"},
    "decoder": {"lora_rank": 2},
    "in-context": {
        "lora_rank": 2,
        "query_max_len": 560,
        "retrieval_use_examples": True,
        "icl_suffix_str": r"\nmate",
    },
    "M3": {"unified_finetuning": True, "colbert_dim": 8, "use_self_distill": True, "self_distill_start_step": 5},
}

#: Loss, family, batches of one data set, batches to a step, workers.
CHOICES = (tuple(LOSSES), tuple(FAMILIES), (False, True), (1, 3), (0, 2))
#: What the options refuse to have together.
REFUSED = {("matryoshka", "M3")}

#: (Batches of one data set, batches to a step) -> steps to an epoch: 12 mixed batches, or 4 + 9 + 6.
STEPS = {(False, 1): 12, (False, 3): 4, (True, 1): 19, (True, 3): 7}


def pairs_of(case):
    return set(itertools.combinations(enumerate(case), 2))


def pairwise(cases):
    """Few cases that have every pair of choices of all cases: always one that adds the most."""
    missing = set().union(*map(pairs_of, cases))
    chosen = []
    while missing:
        chosen.append(max(cases, key=lambda case: len(pairs_of(case) & missing)))
        missing -= pairs_of(chosen[-1])
    return chosen


ALL = [case for case in itertools.product(*CHOICES) if case[:2] not in REFUSED]
CASES = ALL if "RESUMECHECK_MATRIX" in os.environ else pairwise(ALL)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """A plain file, and two of symmetric data with half the batch, one without in-batch negatives; all with scores."""
    scores = {"pos_scores": [2, 1], "neg_scores": [1, 0.5, 0, -0.5, -1]}
    files = {
        "a": ({}, 18),
        "b_no_in_batch_neg": ({"type": "symmetric_class"}, 18),
        "c": ({"type": "symmetric_sts"}, 12),
    }
    found = {}
    for family, options in FAMILIES.items():
        found[family] = directory = tmp_path_factory.mktemp("matrix")
        write = tiny.write_decoder if "lora_rank" in options else tiny.write_encoder
        write(directory / "encoder")
        for seed, (name, (fields, count)) in enumerate(files.items()):
            rows = [{**row, "pos": [text * 4 for text in row["pos"]], **scores} for row in tiny.rows(count, seed=seed)]
            tiny.write_rows(directory / "files" / f"{name}.jsonl", [{**row, **fields} for row in rows])
    return found


def target(factory, directory, loss, family, same_dataset, accumulation, workers):
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
        **FAMILIES[family],
    )


def test_few_cases_have_every_pair_of_choices():
    few = pairwise(ALL)
    assert set().union(*map(pairs_of, few)) == set().union(*map(pairs_of, ALL))
    assert len(few) <= 24


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "family", "same_dataset", "accumulation", "workers"), CASES)
def test_a_resume_is_exact(workbench, directories, loss, family, same_dataset, accumulation, workers):
    epoch = STEPS[same_dataset, accumulation]
    points = [epoch // 2, epoch, epoch + epoch // 2]
    what = target(targets.build, directories[family], loss, family, same_dataset, accumulation, workers)
    for how, at in (("stop", points), ("sigkill", points[-1:])):
        verdict = workbench.verify(what, at=at, interrupt=how)
        assert verdict.verdict == "equivalent", verdict.to_json()
        assert [point.step for point in verdict.resume_points] == at
        assert verdict.steps == 2 * epoch


def test_an_order_that_no_checkpoint_holds_is_found(workbench, directories):
    broken = target(targets.build_with_counted_epochs, directories["encoder"], "contrastive", "encoder", True, 3, 0)
    verdict = workbench.verify(broken, at=[9])
    (point,) = verdict.resume_points
    assert verdict.verdict == "diverged"
    assert (point.first_divergence.step, point.first_divergence.component) == (10, "data-order")
