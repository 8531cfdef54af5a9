"""The similarities that every loss starts from, and which passages count for which query."""

from __future__ import annotations

import dataclasses

import torch


@dataclasses.dataclass(frozen=True)
class Scores:
    """Similarities of queries and passages.

    Attributes:
        values: [batch, passages], divided by the temperature; minus infinity where a passage is no candidate.
        own: [batch, passages], true for the passages of the query's own row.
        positives: [batch], the column of each query's positive.
    """

    values: torch.Tensor
    own: torch.Tensor
    positives: torch.Tensor


def score(
    queries: torch.Tensor,
    passages: torch.Tensor,
    *,
    temperature: float,
    group_sizes: torch.Tensor | None = None,
    own_group_only: torch.Tensor | None = None,
    first: int = 0,
) -> Scores:
    """Dot products in float32 or wider, divided by the temperature.

    Args:
        queries: [batch, dim].
        passages: [passages, dim]; those of a query follow one another, its positive first.
        temperature: what similarities are divided by.
        group_sizes: [batch], how many passages each query has; None where all have the same number.
        own_group_only: [batch], true for queries to which passages of other queries are no negatives.
        first: the column at which the passages of these queries start.

    Raises:
        ValueError: without `group_sizes`, the passages do not divide among the queries.

    Example:
        >>> vectors = torch.eye(2)
        >>> score(vectors, vectors, temperature=0.5, own_group_only=torch.tensor([False, True])).values.tolist()
        [[2.0, 0.0], [-inf, 2.0]]
    """
    return candidates(
        dot_products(queries, passages) / temperature,
        group_sizes=group_sizes,
        own_group_only=own_group_only,
        first=first,
    )


def dot_products(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
    """[batch, passages], in float32 or wider."""
    # Half precision has about three digits, too few for similarities that a small temperature spreads out.
    dtype = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        return queries.to(dtype) @ passages.to(dtype).T


def candidates(
    values: torch.Tensor,
    *,
    group_sizes: torch.Tensor | None = None,
    own_group_only: torch.Tensor | None = None,
    first: int = 0,
) -> Scores:
    """Similarities of any kind, with what the rows say about who is a candidate for whom.

    Args:
        values: [batch, passages], divided by the temperature.
        group_sizes: as for `score`.
        own_group_only: as for `score`.
        first: as for `score`.

    Raises:
        ValueError: without `group_sizes`, the passages do not divide among the queries.

    Example:
        >>> found = candidates(torch.zeros(2, 4))
        >>> found.positives.tolist(), found.own.tolist()
        ([0, 2], [[True, True, False, False], [False, False, True, True]])
    """
    queries, passages = values.shape
    if group_sizes is None:
        group, rest = divmod(passages, queries)
        if rest or not group:
            raise ValueError(f"{passages} passages for {queries} queries: expected the same number for each")
        group_sizes = torch.full((queries,), group, device=values.device)
    ends = first + group_sizes.cumsum(0)
    positives = ends - group_sizes
    columns = torch.arange(passages, device=values.device)
    own = (columns >= positives.unsqueeze(1)) & (columns < ends.unsqueeze(1))
    if own_group_only is not None:
        values = values.masked_fill(own_group_only.unsqueeze(1) & ~own, -torch.inf)
    return Scores(values, own, positives)
