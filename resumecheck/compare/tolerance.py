"""When two numbers count as equal: `bitwise`, `ulp:N`, `close:RTOL,ATOL`, or `noise` (see noise.py)."""

from __future__ import annotations

import dataclasses
import math
import struct

from resumecheck.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """A parsed tolerance. `name` is what the user wrote."""

    name: str
    ulp: int = 0
    relative: float = 0.0
    absolute: float = 0.0

    @property
    def bitwise(self) -> bool:
        """Whether only equal bits count as equal."""
        return self.name == "bitwise"

    @property
    def noise(self) -> bool:
        """Whether the spread of uninterrupted runs is the measure."""
        return self.name == "noise"

    def equal(self, expected: float | None, got: float | None) -> bool:
        """Whether two floats count as equal; numbers in rows are distances of float32 values where they are losses."""
        if expected is None or got is None:
            return expected is got
        if expected == got or (math.isnan(expected) and math.isnan(got)):
            return True
        if self.bitwise or math.isnan(expected) or math.isnan(got):
            return False
        if self.name.startswith("ulp"):
            return ulp_distance(expected, got) <= self.ulp
        return abs(expected - got) <= self.absolute + self.relative * abs(expected)


def parse_tolerance(text: str) -> Tolerance:
    """Parse `bitwise`, `noise`, `ulp:N` or `close:RTOL,ATOL`.

    Raises:
        UsageError: it is none of them.
    """
    kind, _, rest = text.partition(":")
    try:
        if text in ("bitwise", "noise"):
            return Tolerance(text)
        if kind == "ulp" and int(rest) >= 0:
            return Tolerance(text, ulp=int(rest))
        if kind == "close":
            relative, absolute = (float(part) for part in rest.split(","))
            if relative >= 0 and absolute >= 0 and math.isfinite(relative + absolute):
                return Tolerance(text, relative=relative, absolute=absolute)
    except ValueError:
        pass
    raise UsageError(
        f"tolerance {text!r}: expected bitwise, noise, ulp:N or close:RTOL,ATOL, for example close:1e-5,1e-8"
    )


def ulp_distance(first: float, second: float) -> int:
    """Units in the last place between two numbers, as float32 (losses and norms are float32 on the way here)."""
    return abs(_ordered(first) - _ordered(second))


def _ordered(value: float) -> int:
    """The float32 nearest to `value` as an integer that orders like the numbers do."""
    try:
        (bits,) = struct.unpack("<i", struct.pack("<f", value))
    except OverflowError:
        (bits,) = struct.unpack("<i", struct.pack("<f", math.copysign(math.inf, value)))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)
