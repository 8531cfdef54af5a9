"""Each loss equals the formula of its paper, written with plain loops over floats (in double precision)."""

import doctest
import importlib
import math
import pkgutil

import pytest
import torch

from resumecheck.embedding import losses
from resumecheck.embedding.losses.objective import Objective

SIZES = [3, 1, 4, 2]
DRAW = torch.Generator().manual_seed(7)
QUERIES = torch.nn.functional.normalize(torch.randn(4, 8, generator=DRAW, dtype=torch.float64), dim=-1)
PASSAGES = torch.nn.functional.normalize(torch.randn(10, 8, generator=DRAW, dtype=torch.float64), dim=-1)
TEACHER = (3 * torch.randn(10, generator=DRAW, dtype=torch.float64)).tolist()
TEMPERATURE = 0.1
MARKED = [False, True, True, False]


# --- the formulas ----------------------------------------------------------------------------------------------------


def dot(first, second):
    return math.fsum(a * b for a, b in zip(first, second, strict=True))


def log_sum(scores):
    top = max(scores)
    return top + math.log(math.fsum(math.exp(score - top) for score in scores))


def groups(marked=(False,) * 4, queries=None, passages=None):
    """For each query: scores of its own passages, scores of all candidates, the teacher's scores."""
    queries, passages = (QUERIES if queries is None else queries), (PASSAGES if passages is None else passages)
    start = 0
    for number, size in enumerate(SIZES):
        scores = [dot(queries[number].tolist(), passage) / TEMPERATURE for passage in passages.tolist()]
        own = scores[start : start + size]
        yield own, own if marked[number] else scores, TEACHER[start : start + size]
        start += size


def mean(numbers):
    found = list(numbers)
    return math.fsum(found) / len(found)


def info_nce(own, candidates, _=None):
    return log_sum(candidates) - own[0]


def teacher_of(scores):
    total = log_sum(scores)
    return [math.exp(score - total) for score in scores]


def cross_entropy_to_teacher(own, _, teacher):
    return math.fsum(-weight * (score - log_sum(own)) for weight, score in zip(teacher_of(teacher), own, strict=True))


def m3(own, candidates, teacher):
    """Passage i against all candidates but the own ones before it."""
    left, total = list(candidates), 0.0
    for weight, score in zip(teacher_of(teacher), own, strict=True):
        total += weight * (log_sum(left) - score)
        left.remove(score)
    return total


def loss(queries=QUERIES, passages=PASSAGES, *, teacher=None, marked=None, **options):
    return Objective(temperature=TEMPERATURE, **options)(
        queries,
        passages,
        group_sizes=torch.tensor(SIZES),
        own_group_only=None if marked is None else torch.tensor(marked),
        teacher_scores=None if teacher is None else torch.tensor(teacher, dtype=torch.float64),
    )


# --- the losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [(False,) * 4, (True,) * 4, MARKED])
def test_the_contrastive_loss(marked):
    expected = mean(info_nce(*group) for group in groups(marked))
    assert float(loss(marked=list(marked))) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("marked", [(False,) * 4, (True,) * 4, MARKED])
@pytest.mark.parametrize("kind", ["kl_div", "m3_kd_loss"])
def test_distillation(kind, marked):
    def one(*group):
        return info_nce(*group) + cross_entropy_to_teacher(*group) if kind == "kl_div" else m3(*group)

    expected = mean(one(*group) for group in groups(marked))
    assert float(loss(teacher=TEACHER, marked=list(marked), kd_loss_type=kind)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kind", ["kl_div", "m3_kd_loss"])
def test_a_row_without_scores_of_a_teacher_gets_the_contrastive_loss(kind):
    teacher = [math.nan] * 3 + TEACHER[3:8] + [math.nan] * 2

    def one(number, group):
        if number not in (1, 2):
            return info_nce(*group)
        return info_nce(*group) + cross_entropy_to_teacher(*group) if kind == "kl_div" else m3(*group)

    expected = mean(one(number, group) for number, group in enumerate(groups()))
    assert float(loss(teacher=teacher, kd_loss_type=kind)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("teacher", [None, TEACHER])
@pytest.mark.parametrize("normalize", [True, False])
def test_matryoshka_is_the_mean_over_embeddings_that_are_cut(normalize, teacher):
    def cut(vectors, size):
        rows = [row[:size] for row in vectors.tolist()]
        lengths = [math.sqrt(dot(row, row)) if normalize else 1.0 for row in rows]
        return torch.tensor(
            [[value / length for value in row] for row, length in zip(rows, lengths, strict=True)], dtype=torch.float64
        )

    totals = []
    for size in (2, 5, 8):
        found = groups(queries=cut(QUERIES, size), passages=cut(PASSAGES, size))
        totals.append(
            mean(info_nce(*group) + (cross_entropy_to_teacher(*group) if teacher else 0.0) for group in found)
        )
    assert float(loss(dimensions=(2, 5, 8), normalize=normalize, teacher=teacher)) == pytest.approx(
        mean(totals), abs=1e-10
    )


@pytest.mark.parametrize("teacher", [None, TEACHER, [math.nan] * 3 + TEACHER[3:]])
@pytest.mark.parametrize("options", [{}, {"kd_loss_type": "m3_kd_loss"}, {"dimensions": (3, 8)}])
@pytest.mark.parametrize("marked", [None, [True] * 4, MARKED])
def test_the_gradient_is_that_of_finite_differences(options, teacher, marked):
    queries, passages = QUERIES.clone().requires_grad_(True), PASSAGES.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda q, p: loss(q, p, teacher=teacher, marked=marked, **options), (queries, passages)
    )


def test_one_process_with_cross_device_negatives_is_in_batch_negatives():
    assert float(loss(cross_device=True)) == pytest.approx(float(loss()), abs=1e-12)


def test_groups_of_the_same_size_need_no_sizes():
    plain = Objective(temperature=TEMPERATURE)
    given = plain(QUERIES[:2], PASSAGES[:6], group_sizes=torch.tensor([3, 3]))
    assert torch.equal(plain(QUERIES[:2], PASSAGES[:6]), given)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(losses.__path__)])
def test_the_examples_in_the_documentation_of_the_losses_hold(name):
    module = importlib.import_module(f"{losses.__name__}.{name}")
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.failed == 0
    assert result.attempted or name == "objective"
