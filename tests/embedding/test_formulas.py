"""Pooling and loss equal plain loops in float64."""

import math

import pytest
import torch

from resumecheck.embedding.losses.objective import Objective
from resumecheck.embedding.model import pool

LENGTHS = [1, 2, 5, 7, 7]
LONGEST, WIDTH = 7, 6


def padded(side):
    """Token vectors and mask of texts of `LENGTHS`; what is padding holds values that must not count."""
    hidden = torch.randn(len(LENGTHS), LONGEST, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.zeros(len(LENGTHS), LONGEST, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        mask[row, slice(length) if side == "right" else slice(LONGEST - length, LONGEST)] = 1
    return hidden + 1e6 * (1 - mask).unsqueeze(-1), mask


def pooled_by_loop(hidden, mask, method):
    found = []
    for row in range(hidden.shape[0]):
        tokens = [hidden[row, place].tolist() for place in range(hidden.shape[1]) if mask[row, place]]
        if method == "mean":
            found.append([sum(token[axis] for token in tokens) / len(tokens) for axis in range(hidden.shape[2])])
        else:
            found.append(tokens[0 if method == "cls" else -1])
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("method", ["cls", "mean", "last_token"])
def test_pooling_is_the_plain_loop_for_padding_on_either_side(method, side):
    hidden, mask = padded(side)
    assert torch.allclose(pool(hidden, mask, method), pooled_by_loop(hidden, mask, method), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["cls", "mean", "last_token"])
def test_no_gradient_reaches_padding(method):
    hidden, mask = padded("right")
    hidden.requires_grad_(True)
    pool(hidden, mask, method).sum().backward()
    assert not hidden.grad[mask == 0].any()
    assert hidden.grad.any()


def loss_by_loop(queries, passages, temperature):
    """-log softmax of the positive, from lists of floats, shifted by the largest score."""
    group = len(passages) // len(queries)
    total = 0.0
    for number, query in enumerate(queries):
        scores = [math.fsum(a * b for a, b in zip(query, passage, strict=True)) / temperature for passage in passages]
        top = max(scores)
        total += top + math.log(math.fsum(math.exp(score - top) for score in scores)) - scores[number * group]
    return total / len(queries)


@pytest.mark.parametrize("temperature", [0.01, 0.02, 1.0])
@pytest.mark.parametrize(("batch", "group"), [(1, 1), (1, 4), (3, 1), (5, 3)])
def test_the_loss_is_the_plain_loop(batch, group, temperature):
    draw = torch.Generator().manual_seed(batch * 10 + group)
    queries = torch.nn.functional.normalize(torch.randn(batch, 6, generator=draw, dtype=torch.float64), dim=-1)
    passages = torch.nn.functional.normalize(torch.randn(batch * group, 6, generator=draw, dtype=torch.float64), dim=-1)
    expected = loss_by_loop(queries.tolist(), passages.tolist(), temperature)
    assert float(Objective(temperature)(queries, passages)) == pytest.approx(expected, abs=1e-10)


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    draw = torch.Generator().manual_seed(2)
    queries = torch.randn(3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    passages = torch.randn(6, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Objective(0.5), (queries, passages))


@pytest.mark.parametrize("marked", [[True] * 4, [False] * 4, [True, False, False, True]])
def test_a_query_without_in_batch_negatives_sees_its_own_group_alone(marked):
    draw = torch.Generator().manual_seed(4)
    sizes = [3, 1, 2, 4]
    queries = torch.randn(4, 6, generator=draw, dtype=torch.float64, requires_grad=True)
    passages = torch.randn(10, 6, generator=draw, dtype=torch.float64, requires_grad=True)
    total, start = 0.0, 0
    for number, size in enumerate(sizes):
        scores = [math.fsum(a * b for a, b in zip(queries[number].tolist(), p, strict=True)) for p in passages.tolist()]
        seen = scores[start : start + size] if marked[number] else scores
        total += math.log(math.fsum(math.exp(score / 0.7) for score in seen)) - scores[start] / 0.7
        start += size

    def loss(queries, passages):
        return Objective(0.7)(
            queries,
            passages,
            group_sizes=torch.tensor(sizes),
            own_group_only=torch.tensor(marked),
        )

    assert float(loss(queries, passages).detach()) == pytest.approx(total / 4, abs=1e-10)
    assert torch.autograd.gradcheck(loss, (queries, passages))
