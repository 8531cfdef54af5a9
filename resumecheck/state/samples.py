"""The samples of a batch, told apart by their content: for data that has no indices, or not the ones it should have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from resumecheck.state.digest import digest


def sample_digests(batch: Any) -> list[str] | None:
    """A digest of each sample of a batch.

    Where there is an `attention_mask` its zeros are left out, so that a sample is the same in batches that are padded
    to different lengths.

    Args:
        batch: what the model is called with; its tensors have the samples in their first dimension.

    Returns:
        One text for each sample, in order; None where the batch has no tensors, or they disagree in their length.
    """
    tensors = _tensors(batch)
    lengths = {len(tensor) for tensor in tensors.values()}
    if len(lengths) != 1:
        return None
    mask = tensors.get("attention_mask")
    return [
        digest([_without_padding(tensor, mask, index) for tensor in tensors.values()]) for index in range(lengths.pop())
    ]


def _without_padding(tensor: torch.Tensor, mask: torch.Tensor | None, index: int) -> torch.Tensor:
    sample = tensor[index]
    if mask is None or mask.shape != tensor.shape:
        return sample.contiguous()
    return sample[mask[index].bool()].contiguous()


def _tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value} if value.dim() > 0 else {}
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {}
    found: dict[str, torch.Tensor] = {}
    for key, item in items:
        found |= _tensors(item, f"{name}.{key}" if name else str(key))
    return found
