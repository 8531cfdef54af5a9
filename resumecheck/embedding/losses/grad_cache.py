"""Large batches in the memory of small ones (`--sub_batch_size`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

Embedded = TypeVar("Embedded", torch.Tensor, dict[str, torch.Tensor])


def embed_in_chunks(
    embed: Callable[[dict[str, torch.Tensor]], Embedded], tokens: Mapping[str, torch.Tensor], size: int
) -> Embedded:
    """Embeddings that keep nothing of the encoder for the backward pass, which encodes again, chunk by chunk.

    Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup" (GradCache): first all
    embeddings without a graph, then the gradient of the loss with respect to them, then the encoder's gradient for one
    chunk after the other. That is a checkpoint of activations around each chunk, which also puts back the random state
    that the chunk had in the first pass, so that both passes drop the same units.

    Args:
        embed: tokens [rows, length] to embeddings [rows, dim], or to several tensors by name with a row for each text.
        tokens: [batch, length].
        size: rows to a chunk.

    Returns:
        The same for [batch, length], with the values and gradients that encoding the chunks in turn without this has.

    Example:
        >>> embed_in_chunks(lambda tokens: tokens["input_ids"] * 2.0, {"input_ids": torch.ones(3, 1)}, 2).tolist()
        [[2.0], [2.0], [2.0]]
    """
    rows = len(next(iter(tokens.values())))
    chunks = [{name: part[start : start + size] for name, part in tokens.items()} for start in range(0, rows, size)]
    parts = [checkpoint(embed, chunk, use_reentrant=False) for chunk in chunks]
    whole: Any = torch.cat(parts) if isinstance(parts[0], torch.Tensor) else _by_name(parts)
    return whole


def _by_name(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
