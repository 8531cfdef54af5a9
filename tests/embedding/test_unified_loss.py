"""The loss of M3 equals the formulas of its paper (arXiv 2402.03216), written with plain loops over floats."""

import math

import pytest
import torch

from resumecheck.embedding.losses.objective import Objective
from resumecheck.embedding.losses.scores import candidates
from resumecheck.embedding.losses.unified import UnifiedObjective, late_interaction, learned_from
from tests.embedding.test_losses import (
    MARKED,
    SIZES,
    TEACHER,
    TEMPERATURE,
    cross_entropy_to_teacher,
    dot,
    info_nce,
    log_sum,
    m3,
    mean,
    teacher_of,
)

KINDS = ("dense", "sparse", "multi_vector")
WEIGHT_IN_SUM, WEIGHT_IN_LOSS = (1.0, 0.3, 1.0), (1.0, 0.1, 1.0)


def views(lengths, seed, *, longest=6, dim=5):
    """Dense embeddings, term weights, and token vectors with padding that holds values that must not count."""
    draw = torch.Generator().manual_seed(seed)
    normalize = torch.nn.functional.normalize
    counted = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    vectors = normalize(torch.randn(len(lengths), longest, dim, generator=draw, dtype=torch.float64), dim=-1)
    return {
        "dense": normalize(torch.randn(len(lengths), 8, generator=draw, dtype=torch.float64), dim=-1),
        "sparse": torch.randn(len(lengths), 9, generator=draw, dtype=torch.float64).relu(),
        "multi_vector": torch.where(counted.unsqueeze(-1), vectors, 1e3),
        "counted": counted,
    }


QUERIES = views([1, 6, 3, 2], 1)
PASSAGES = views([6, 2, 1, 4, 4, 3, 5, 1, 6, 2], 2)


# --- the formulas ----------------------------------------------------------------------------------------------------


def tokens(texts, number):
    pairs = zip(texts["multi_vector"][number].tolist(), texts["counted"][number].tolist(), strict=True)
    return [vector for vector, counts in pairs if counts]


def late(query, passage):
    return mean(max(dot(token, other) for other in passage) for token in query)


def scores_of(query, passage, queries=QUERIES, passages=PASSAGES):
    """The three scores of a pair, divided by the temperature."""
    found = [dot(queries[kind][query].tolist(), passages[kind][passage].tolist()) for kind in KINDS[:2]]
    return [score / TEMPERATURE for score in (*found, late(tokens(queries, query), tokens(passages, passage)))]


def rows(marked):
    """For each query the scores of its own passages and of all candidates, for each kind and the sum; the teacher's."""
    start = 0
    for query, size in enumerate(SIZES):
        columns = []
        for passage in range(len(TEACHER)):
            three = scores_of(query, passage)
            columns.append([*three, math.fsum(w * score for w, score in zip(WEIGHT_IN_SUM, three, strict=True))])
        own = columns[start : start + size]
        seen = own if marked[query] else columns
        by_kind = [([column[kind] for column in own], [column[kind] for column in seen]) for kind in range(4)]
        yield by_kind, TEACHER[start : start + size]
        start += size


def expected(marked, one, *, self_distill):
    """The loss; `one` is that of the scores of a query: own, candidates, teacher."""
    found, taught = [], []
    for by_kind, teacher in rows(marked):
        losses = [one(own, seen, teacher) for own, seen in by_kind]
        found.append(math.fsum(w * loss for w, loss in zip((*WEIGHT_IN_LOSS, 1.0), losses, strict=True)) / 4)
        targets = teacher_of(by_kind[3][1])
        distances = [
            math.fsum(-target * (score - log_sum(seen)) for target, score in zip(targets, seen, strict=True))
            for _, seen in by_kind[:3]
        ]
        taught.append(math.fsum(w * d for w, d in zip(WEIGHT_IN_LOSS, distances, strict=True)) / 3)
    return (mean(found) + mean(taught)) / 2 if self_distill else mean(found)


def loss(queries=QUERIES, passages=PASSAGES, *, teacher=None, marked=None, self_distill=False, **options):
    return UnifiedObjective(Objective(temperature=TEMPERATURE, **options))(
        queries,
        passages,
        group_sizes=torch.tensor(SIZES),
        own_group_only=None if marked is None else torch.tensor(marked),
        teacher_scores=None if teacher is None else torch.tensor(teacher, dtype=torch.float64),
        self_distill=self_distill,
    )


# --- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("self_distill", [False, True])
@pytest.mark.parametrize("marked", [(False,) * 4, (True,) * 4, MARKED])
def test_the_loss_without_a_teacher(marked, self_distill):
    found = float(loss(marked=list(marked), self_distill=self_distill))
    assert found == pytest.approx(expected(marked, info_nce, self_distill=self_distill), abs=1e-10)


@pytest.mark.parametrize("self_distill", [False, True])
@pytest.mark.parametrize("marked", [(False,) * 4, MARKED])
@pytest.mark.parametrize("kind", ["kl_div", "m3_kd_loss"])
def test_the_loss_with_a_teacher(kind, marked, self_distill):
    def one(*group):
        return info_nce(*group) + cross_entropy_to_teacher(*group) if kind == "kl_div" else m3(*group)

    found = float(loss(teacher=TEACHER, marked=list(marked), kd_loss_type=kind, self_distill=self_distill))
    assert found == pytest.approx(expected(marked, one, self_distill=self_distill), abs=1e-10)


def test_groups_of_the_same_size_need_no_sizes():
    queries = {name: tensor[:2] for name, tensor in QUERIES.items()}
    passages = {name: tensor[:6] for name, tensor in PASSAGES.items()}
    objective = UnifiedObjective(Objective(temperature=TEMPERATURE))
    assert torch.equal(objective(queries, passages), objective(queries, passages, group_sizes=torch.tensor([3, 3])))


@pytest.mark.parametrize("options", [{}, {"teacher": TEACHER}, {"marked": MARKED}])
def test_the_gradient_is_that_of_finite_differences(options):
    names = [(texts, kind) for texts in (QUERIES, PASSAGES) for kind in KINDS]
    given = tuple(texts[kind].clone().requires_grad_(True) for texts, kind in names)

    def of(*tensors):
        queries = {**QUERIES, **dict(zip(KINDS, tensors[:3], strict=True))}
        return loss(queries, {**PASSAGES, **dict(zip(KINDS, tensors[3:], strict=True))}, **options)

    assert torch.autograd.gradcheck(of, given)


def test_the_sum_of_the_scores_does_not_learn_from_its_pupils():
    teacher, student = (torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    teacher.requires_grad_(True), student.requires_grad_(True)
    learned_from(candidates(teacher), candidates(student)).sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0.1


@pytest.mark.parametrize("side", [0, 1])
def test_a_text_without_a_token_that_counts_has_the_score_zero_and_no_gradient_that_is_no_number(side):
    counted = [torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)]
    counted[side][0] = False
    vectors = [torch.ones(2, 3, 4, requires_grad=True) for _ in range(2)]
    found = late_interaction(vectors[0], counted[0], vectors[1], counted[1])
    found.sum().backward()
    empty = found[0] if side == 0 else found[:, 0]
    assert torch.equal(empty, torch.zeros(2))
    assert (found != 0).sum() == 2
    assert all(part.grad.isfinite().all() for part in vectors)


# --- several processes -----------------------------------------------------------------------------------------------


def one_of_two_processes(rank, path):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    sizes, first = SIZES[2 * rank : 2 * rank + 2], (0, SIZES[0] + SIZES[1])[rank]
    found = UnifiedObjective(Objective(temperature=TEMPERATURE, cross_device=True))(
        {name: tensor[2 * rank : 2 * rank + 2] for name, tensor in QUERIES.items()},
        {name: tensor[first : first + sum(sizes)] for name, tensor in PASSAGES.items()},
        group_sizes=torch.tensor(sizes),
    )
    torch.save(found, path / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_passages_of_other_processes_are_negatives_for_the_dense_embedding_alone(tmp_path):
    torch.multiprocessing.spawn(one_of_two_processes, (tmp_path,), nprocs=2)
    found = mean(float(torch.load(tmp_path / f"{rank}.pt")) for rank in range(2))
    totals, start = [], 0
    for query, size in enumerate(SIZES):
        here = range(4) if query < 2 else range(4, 10)
        by_passage = [scores_of(query, passage) for passage in range(10)]
        summed = [math.fsum(w * score for w, score in zip(WEIGHT_IN_SUM, three, strict=True)) for three in by_passage]
        own = slice(start, start + size)
        losses = [info_nce([three[0] for three in by_passage[own]], [three[0] for three in by_passage])]
        for scores in ([three[1] for three in by_passage], [three[2] for three in by_passage], summed):
            losses.append(info_nce(scores[own], [scores[passage] for passage in here]))
        totals.append(math.fsum(w * one for w, one in zip((*WEIGHT_IN_LOSS, 1.0), losses, strict=True)) / 4)
        start += size
    assert found == pytest.approx(mean(totals), abs=1e-10)
