import math

import numpy as np
import pytest
import torch

from resumecheck.embedding.losses.objective import Objective


def by_hand(queries, passages, temperature):
    """-log(exp(s+) / sum(exp(s))) over every passage of the batch, in float64 without torch."""
    group = len(passages) // len(queries)
    losses = []
    for number, query in enumerate(queries):
        scores = [float(np.dot(query, passage)) / temperature for passage in passages]
        losses.append(-scores[number * group] + math.log(sum(math.exp(score) for score in scores)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("group", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_loss_is_the_formula(group, temperature):
    draw = np.random.default_rng(group)
    queries, passages = draw.normal(size=(6, 8)), draw.normal(size=(6 * group, 8))
    loss = Objective(temperature)(torch.tensor(queries), torch.tensor(passages))
    assert loss.dtype == torch.float64
    assert math.isclose(float(loss), by_hand(queries, passages, temperature), rel_tol=1e-12)


def test_the_gradient_pulls_towards_the_positive_and_away_from_the_others():
    queries = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    passages = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    Objective(1.0)(queries, passages).backward()
    weight = math.exp(1) / (1 + math.exp(1))
    assert torch.allclose(queries.grad, torch.tensor([[weight, -weight]], dtype=torch.float64))


def test_half_precision_embeddings_give_a_loss_in_single_precision():
    queries, passages = torch.eye(4, dtype=torch.bfloat16), torch.eye(4, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = Objective(0.02)(queries, passages)
    assert loss.dtype == torch.float32


def test_passages_that_do_not_divide_among_the_queries_are_an_error():
    with pytest.raises(ValueError, match="5 passages for 2 queries"):
        Objective(1.0)(torch.zeros(2, 3), torch.zeros(5, 3))
