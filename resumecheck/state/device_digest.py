"""A hash of a tensor that is computed where the tensor lies, and the transfer that fetches many of them in one copy.

The bytes of the tensor, in groups of four, are numbers a[i] in rows of 4096. A row becomes two sums of a[i] * w[i]
modulo 2**64, with two fixed tables of odd weights w; the sums, in groups of four bytes again, are hashed in the same
way until one row is left. A weight belongs to a place, so a permutation changes the sums. Groups of eight bytes would
not do: a sign would be 2**63 times an odd weight, and two changed signs nothing. Integers add up to the same sum in any
order, so the hash is the same on every device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

#: Numbers in a row, and rows that are multiplied at a time: what bounds the memory that a hash takes (16 MiB).
ROW, SLAB = 4096, 256


def on_device(tensor: torch.Tensor) -> bool:
    """Whether reading a tensor's values would copy them to the CPU, and wait for them."""
    return not tensor.is_cpu


@functools.cache
def weights(device: torch.device) -> torch.Tensor:
    """The two tables of odd weights, `[2, ROW]`: the outputs of splitmix64 (Steele and others, 2014)."""
    with np.errstate(over="ignore"):
        mixed = np.arange(1, 2 * ROW + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)
    return torch.from_numpy(mixed.view(np.int64).reshape(2, ROW)).to(device)


@torch.no_grad()
def hash_words(tensor: torch.Tensor) -> torch.Tensor:
    """The hash of a strided tensor's bytes as two integers, `[2]` int64, on the device of the tensor."""
    words = _numbers(tensor)
    table = weights(words.device)
    while True:
        whole = words.numel() // ROW
        rows = words[: whole * ROW].view(whole, 1, ROW)
        sums = [(rows[start : start + SLAB] * table).sum(dim=-1) for start in range(0, whole, SLAB)]
        rest = words[whole * ROW :]
        if rest.numel() or not whole:
            sums.append((rest * table[:, : rest.numel()]).sum(dim=-1).view(1, 2))
        hashed = sums[0] if len(sums) == 1 else torch.cat(sums)
        if len(hashed) == 1:
            return hashed.view(2)
        words = hashed.view(-1).view(torch.int32)


@torch.no_grad()
def single_words(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor of one element as two integers, `[2]` int64, on the device of the tensor."""
    raw = _plain(tensor).reshape(1).view(torch.uint8)
    return torch.nn.functional.pad(raw, (0, 16 - raw.numel())).view(torch.int64)


def single_value(words: tuple[int, int], dtype: torch.dtype) -> Any:
    """The element that `single_words` was made of."""
    raw = torch.tensor(words, dtype=torch.int64).view(torch.uint8)
    return raw[: dtype.itemsize].view(dtype).item()


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Without the flags by which torch conjugates and negates lazily."""
    return tensor.detach().resolve_conj().resolve_neg()


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes in groups of four as `[n]` int32, zeros after the last; a copy only where the layout demands it."""
    flat = _plain(tensor).contiguous().reshape(-1)
    raw = flat.view(torch.uint8)
    if raw.numel() % 4:
        raw = torch.nn.functional.pad(raw, (0, -raw.numel() % 4))
    elif raw.storage_offset() % 4:
        raw = raw.clone()
    return raw.view(torch.int32)


class Transfer:
    """Small results on devices, each two integers, that are copied to the CPU together when they are fetched."""

    def __init__(self) -> None:
        self._waiting: list[tuple[torch.Tensor, Callable[[tuple[int, int]], None]]] = []
        self._after: list[Callable[[], None]] = []

    def add(self, words: torch.Tensor, then: Callable[[tuple[int, int]], None]) -> None:
        """Call `then` with these two integers (`[2]` int64) once they are fetched."""
        self._waiting.append((words, then))

    def after(self, then: Callable[[], None]) -> None:
        """Call `then` once everything is fetched."""
        self._after.append(then)

    def fetch(self) -> None:
        """Copy what waits, one copy for each device, and hand it out."""
        waiting, self._waiting = self._waiting, []
        after, self._after = self._after, []
        for device in {words.device for words, _ in waiting}:
            here = [(words, then) for words, then in waiting if words.device == device]
            for (first, second), (_, then) in zip(torch.stack([w for w, _ in here]).tolist(), here, strict=True):
                then((first, second))
        for then in after:
            then()
