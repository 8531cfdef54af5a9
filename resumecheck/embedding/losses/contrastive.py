"""In-batch plus hard negatives (InfoNCE), or hard negatives alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from resumecheck.embedding.losses.scores import Scores, score


def contrastive(scores: Scores) -> torch.Tensor:
    """Cross entropy of each query's own positive against every other candidate, [batch].

    van den Oord et al. 2018, "Representation learning with contrastive predictive coding"; with in-batch and hard
    negatives as in Karpukhin et al. 2020, "Dense passage retrieval for open-domain question answering".
    """
    with torch.autocast(scores.values.device.type, enabled=False):
        return F.cross_entropy(scores.values, scores.positives, reduction="none")


def contrastive_loss(
    queries: torch.Tensor,
    passages: torch.Tensor,
    *,
    temperature: float,
    group_sizes: torch.Tensor | None = None,
    own_group_only: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mean of `contrastive` over the queries, a scalar in float32 or wider.

    Args:
        queries: [batch, dim].
        passages: [passages, dim]; those of a query follow one another, its positive first.
        temperature: similarities (dot products) are divided by it.
        group_sizes: [batch], how many passages each query has; None where all have the same number.
        own_group_only: [batch], true for queries to which passages of other queries are no negatives.

    Example:
        >>> vectors = torch.eye(2)
        >>> round(float(contrastive_loss(vectors, vectors, temperature=1.0)), 4)  # -log(e / (e + 1))
        0.3133
    """
    scores = score(queries, passages, temperature=temperature, group_sizes=group_sizes, own_group_only=own_group_only)
    return contrastive(scores).mean()
