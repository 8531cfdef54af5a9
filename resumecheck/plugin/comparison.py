"""What `assert left == right` says of recorded runs: the first step that differs, both values exactly, how far."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from resumecheck.compare.tolerance import ulp_distance
from resumecheck.trajectory import Row, StepValues, Trajectory
from resumecheck.verdict import ResumePoint, Verdict

LISTED_RANGES = 8


def explain_equality(left: object, right: object) -> list[str] | None:
    """The lines below `assert`, None for what is no record of a run."""
    if isinstance(left, list) and isinstance(right, list):
        if isinstance(left, StepValues) or isinstance(right, StepValues):
            return list(_step_values(left, right))
    elif isinstance(left, Trajectory) and isinstance(right, Trajectory):
        return list(_trajectories(left, right))
    elif isinstance(left, Row) and isinstance(right, Row):
        return list(_rows(left, right))
    elif isinstance(left, Verdict) and isinstance(right, Verdict):
        return list(_verdicts(left, right))
    return None


def _step_values(left: list[Any], right: list[Any]) -> Iterator[str]:
    """Two lists of numbers, at least one of which knows its steps."""
    yield f"{_name_of(left)} == {_name_of(right)}"
    steps = left.steps if isinstance(left, StepValues) else getattr(right, "steps", range(0))
    if isinstance(left, StepValues) and isinstance(right, StepValues):
        if left.quantity != right.quantity:
            yield f"these are two quantities: {left.quantity} and {right.quantity}"
        if left.steps[:1] != right.steps[:1] or left.steps.step != right.steps.step:
            yield f"left has {_span(left.steps)}, right has {_span(right.steps)}: each step is beside another one"
    pairs = list(zip(left, right, strict=False))
    differing = [index for index, pair in enumerate(pairs) if pair[0] != pair[1]]
    if differing:
        first = differing[0]
        yield f"first difference at step {steps[first]}:"
        yield from _pair(*pairs[first])
        where = _ranges(steps[index] for index in differing)
        yield f"{len(differing)} of {len(pairs)} steps differ: {where}"
        if all(_both_nan(*pairs[index]) for index in differing):
            yield "nan equals nothing in Python, itself included; assert_resume_equivalent compares the bits"
    if len(left) != len(right):
        yield f"left has {len(left)} steps, right has {len(right)}"


def _pair(left: Any, right: Any) -> Iterator[str]:
    yield f"  left   {left!r}"
    yield f"  right  {right!r}"
    if isinstance(left, float) and isinstance(right, float) and math.isfinite(left) and math.isfinite(right):
        yield f"  apart  {abs(left - right):.3g}, {_ulps(left, right)}"


def _ulps(left: float, right: float) -> str:
    """In the type of the numbers: what a float32 holds exactly most likely was one."""
    if _is_float32(left) and _is_float32(right):
        return f"{ulp_distance(left, right):,} ulp (float32)"
    return f"{abs(_ordered(left) - _ordered(right)):,} ulp (float64)"


def _is_float32(value: float) -> bool:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0] == value
    except OverflowError:
        return False


def _ordered(value: float) -> int:
    """A float64 as an integer that orders like the numbers do."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFFFFFFFFFF)


def _trajectories(left: Trajectory, right: Trajectory) -> Iterator[str]:
    """Two recorded runs, compared over the steps that both have; the one that starts later counts as resumed."""
    from resumecheck.compare.differences import compare
    from resumecheck.compare.tolerance import parse_tolerance

    yield f"{left.words} == {right.words}"
    expected, got = (left, right) if right.first_step >= left.first_step else (right, left)
    found = compare(
        expected,
        got,
        after=got.first_step,
        until=max(left.last_step, right.last_step),
        tolerance=parse_tolerance("bitwise"),
        steps=1,
    )
    of_steps = [difference for difference in found if difference.rung != "logs"]
    if of_steps:
        first = of_steps[0]
        name = f" of {first.name}" if first.name else ""
        yield f"first difference at step {first.step}, {first.rung}: {first.quantity}{name} ({first.component})"
        yield from _pair(*((first.expected, first.got) if expected is left else (first.got, first.expected)))
    else:
        yield "their steps are the same; == also compares where the records are, and when they were made"
    yield "assert_resume_equivalent(reference, resumed) asserts that a run continues another"


def _rows(left: Row, right: Row) -> Iterator[str]:
    """Two recorded steps, field by field in the order in which causes act."""
    yield f"step {left.step} == step {right.step}"
    differing = [field.name for field in dataclasses.fields(Row) if _of(left, field.name) != _of(right, field.name)]
    order = ("step", "start", "epoch", "epoch_streams", "streams", "micro", "gradients", "grad_norm", "lr", "state")
    for name in sorted(differing, key=lambda name: order.index(name) if name in order else len(order)):
        yield f"{name} differs{_first_leaf(_of(left, name), _of(right, name))}"
    if left.loss != right.loss:
        yield "loss:"
        yield from _pair(left.loss, right.loss)


def _verdicts(left: Verdict, right: Verdict) -> Iterator[str]:
    """Two verdicts: their fields, and their resume points by step."""
    yield f"verdict {left.verdict} of {left.target} == verdict {right.verdict} of {right.target}"
    for field in dataclasses.fields(Verdict):
        pair = getattr(left, field.name), getattr(right, field.name)
        if field.name != "resume_points" and pair[0] != pair[1]:
            yield f"{field.name}: {pair[0]!r} != {pair[1]!r}"
    points = [{(point.step, point.resumes): point for point in side.resume_points} for side in (left, right)]
    for key in sorted({*points[0], *points[1]}):
        mine, theirs = points[0].get(key), points[1].get(key)
        if mine != theirs:
            yield f"resume point {key[0]}: {_of_point(mine)} != {_of_point(theirs)}"


def _of_point(point: ResumePoint | None) -> str:
    if point is None:
        return "not there"
    first = point.first_divergence
    return point.verdict if first is None else f"{point.verdict} at step {first.step} in {first.component}"


def _of(row: Row, name: str) -> Any:
    value = getattr(row, name)
    return [vars(micro) for micro in value] if name == "micro" else value


def _first_leaf(left: Any, right: Any, path: str = "") -> str:
    """The first place inside two values at which they differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for name in {**left, **right}:
            if left.get(name) != right.get(name):
                return _first_leaf(left.get(name), right.get(name), f"{path}[{name!r}]")
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            if pair[0] != pair[1]:
                return _first_leaf(*pair, f"{path}[{index}]")
    return f" first at {path}: {left!r} != {right!r}" if path else f": {left!r} != {right!r}"


def _name_of(values: list[Any]) -> str:
    if not isinstance(values, StepValues):
        return f"a list of {len(values)}"
    return f"{values.quantity} of {values.run}, {_span(values.steps)}"


def _span(steps: range) -> str:
    return f"steps {steps[0]} to {steps[-1]}" if steps else "no steps"


def _both_nan(left: Any, right: Any) -> bool:
    return isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)


def _ranges(steps: Iterable[int]) -> str:
    """`5-12, 14`."""
    ranges: list[list[int]] = []
    for step in sorted(steps):
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    texts = [f"{first}-{last}" if last > first else str(first) for first, last in ranges]
    return ", ".join(texts[:LISTED_RANGES]) + (", ..." if len(texts) > LISTED_RANGES else "")
