"""Embeddings whose first dimensions are embeddings themselves (`--use_mrl`, `--mrl_dims`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812


def at_dimensions(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    queries: torch.Tensor,
    passages: torch.Tensor,
    *,
    dimensions: Sequence[int],
    normalize: bool,
) -> torch.Tensor:
    """The mean of a loss over embeddings cut to each number of dimensions.

    Kusupati et al. 2022, "Matryoshka representation learning".

    Args:
        loss: of queries [batch, d] and passages [passages, d].
        queries: [batch, dim].
        passages: [passages, dim].
        dimensions: the numbers of dimensions, each at most dim.
        normalize: scale what was cut to length one again.

    Returns:
        What `loss` returns.

    Example:
        >>> vectors = torch.tensor([[3.0, 4.0]])
        >>> at_dimensions(lambda q, p: (q * p).sum(), vectors, vectors, dimensions=[1, 2], normalize=False)
        tensor(17.)
    """

    def cut(vectors: torch.Tensor, size: int) -> torch.Tensor:
        return F.normalize(vectors[:, :size], dim=-1) if normalize else vectors[:, :size]

    return torch.stack([loss(cut(queries, size), cut(passages, size)) for size in dimensions]).mean(dim=0)
