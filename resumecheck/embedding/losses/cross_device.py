"""The passages of all processes as negatives (`--negatives_cross_device`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist


@dataclasses.dataclass(frozen=True)
class Joint:
    """The passages of all processes.

    Attributes:
        passages: [passages of all processes, dim], in the order of the processes; gradients flow back to their process.
        first: where the passages of this process start.
        share: what the sum of the losses of this process's queries is multiplied with, so that the mean over the
            processes, which data parallel training takes, is the mean over the queries of all of them.
    """

    passages: torch.Tensor
    first: int
    share: float


def joint(queries: torch.Tensor, passages: torch.Tensor) -> Joint:
    """The passages [passages, dim] of this process beside those of the others, whose numbers may differ.

    As the shared negatives of Karpukhin et al. 2020, "Dense passage retrieval for open-domain question answering"; the
    gradient reaches the passages of every process, so that the step is that of one process with the joint batch.

    Example:
        >>> joint(torch.ones(2, 3), torch.ones(4, 3)).share  # one process: the mean
        0.5
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return Joint(passages, 0, 1 / len(queries))
    here = torch.tensor([len(queries), len(passages)], device=passages.device)
    everywhere = [torch.empty_like(here) for _ in range(dist.get_world_size())]
    dist.all_gather(everywhere, here)
    counts = torch.stack(everywhere).tolist()
    sizes = [size for _, size in counts]
    share = dist.get_world_size() / sum(rows for rows, _ in counts)
    return Joint(_AllGather.apply(passages, sizes), sum(sizes[: dist.get_rank()]), share)


class _AllGather(torch.autograd.Function):
    """`torch.distributed.all_gather` alone passes no gradient on."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        """All rows [sum of sizes, dim]."""
        ctx.sizes = sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])  # all parts must have the same shape
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The sum of what every process has for the rows of this one."""
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        first = sum(ctx.sizes[: dist.get_rank()])
        return total[first : first + ctx.sizes[dist.get_rank()]], None
