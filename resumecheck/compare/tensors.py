"""How far two tensors are apart: largest absolute difference, and largest distance in units in the last place."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

import torch

from resumecheck.compare.tolerance import Tolerance

_INTEGERS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


@dataclasses.dataclass(frozen=True)
class Distance:
    """Distance of two tensors, and the values at the element where they differ most."""

    max_abs: float
    max_ulp: int | None
    expected: float
    got: float
    where: tuple[int, ...]


def distance(expected: torch.Tensor, got: torch.Tensor) -> Distance | None:
    """The distance of two tensors of one shape; None where shapes differ or nothing does."""
    if expected.shape != got.shape or expected.numel() == 0:
        return None
    wide = [tensor.detach().cpu().reshape(-1).to(torch.float64) for tensor in (expected, got)]
    gap = (wide[0] - wide[1]).abs().nan_to_num(nan=float("inf"))
    index = int(gap.argmax())
    ulp = None
    if expected.dtype == got.dtype and expected.dtype in _INTEGERS:
        ordered = [_ordered(tensor) for tensor in (expected, got)]
        steps = (ordered[0] - ordered[1]).abs()
        ulp = int(steps.max())
        if float(gap[index]) == 0.0:
            index = int(steps.argmax())
    where = (
        tuple(int(part) for part in torch.unravel_index(torch.tensor(index), expected.shape)) if expected.dim() else ()
    )
    return Distance(float(gap.max()), ulp, float(wide[0][index]), float(wide[1][index]), where)


def _ordered(tensor: torch.Tensor) -> torch.Tensor:
    """Bits as integers that order like the numbers do."""
    integer = _INTEGERS[tensor.dtype]
    bits = tensor.detach().cpu().contiguous().reshape(-1).view(integer).to(torch.int64)
    size = torch.iinfo(integer).max
    return torch.where(bits >= 0, bits, -(bits & size))


def compare_ends(
    expected: Path, got: Path, components: Collection[str], tolerance: Tolerance
) -> Iterator[tuple[str, Distance | None]]:
    """Keys `component|quantity|name` of stored tensors that are not within the tolerance, with their distance.

    Args:
        expected: file with the tensors that the uninterrupted run ended with.
        got: the same of the resumed run.
        components: which components to compare.
        tolerance: for `close`, |expected - got| <= ATOL + RTOL * |expected| must hold for every element.
    """
    before, now = (torch.load(path, weights_only=True) for path in (expected, got))
    for key, value in before.items():
        if key.partition("|")[0] not in components or not isinstance(value, torch.Tensor):
            continue
        other = now.get(key)
        if not isinstance(other, torch.Tensor) or other.shape != value.shape:
            yield key, None
            continue
        apart = distance(value, other)
        if apart is not None and not within(value, other, apart, tolerance):
            yield key, apart


def within(expected: torch.Tensor, got: torch.Tensor, apart: Distance, tolerance: Tolerance) -> bool:
    """Whether two tensors that are this far apart count as equal."""
    if tolerance.name.startswith("ulp"):
        return apart.max_ulp is not None and apart.max_ulp <= tolerance.ulp
    return torch.allclose(
        got.double(), expected.double(), rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True
    )
