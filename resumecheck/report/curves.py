"""A quantity of every step as a picture: the runs laid over each other, and below their difference in ulp.

The scale of the difference is linear up to one unit in the last place (ulp) and logarithmic from there on, so that a
single ulp is as visible as a billion. Units are those of float32, as everywhere in the report.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as Tree

from resumecheck.compare.tolerance import ulp_distance
from resumecheck.evidence import QUANTITIES, RecordedRun
from resumecheck.report.timeline import Axis, element, markup, picture, step_ticks
from resumecheck.report.wording import as_pair, number

WIDTH, LEFT, RIGHT = 960, 92, 52
CURVES, GAP, BELOW, TOP, BOTTOM = 150, 26, 130, 12, 26

#: A run of more steps is drawn by the extremes of so many stretches.
MOST_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Apart:
    """How far a run is from the reference at a step: `ulp` is signed, a fraction where it is less than one ulp.

    It is infinite where one of the two is not a number, or is not there.
    """

    step: int
    expected: float | None
    got: float | None
    ulp: float

    @property
    def words(self) -> str:
        """`step 5: expected 0.5, got 0.25 (8,388,608 ulp)`."""
        expected, got = as_pair(self.expected, self.got)
        return f"step {self.step}: expected {expected}, got {got}{f' ({ulp_words(self.ulp)})' if self.ulp else ''}"


def ulp_words(ulp: float) -> str:
    """A distance in ulp as text."""
    if ulp == 0:
        return "0"
    if math.isinf(ulp):
        return "not comparable"
    return f"{ulp:+,.0f} ulp" if abs(ulp) >= 1 else "under 1 ulp"


def differences(quantity: str, reference: RecordedRun, run: RecordedRun) -> list[Apart]:
    """How far a run is from the reference at each step that both ran and recorded."""
    found: list[Apart] = []
    for step in range(run.first_step + 1, min(run.last_step, reference.last_step) + 1):
        expected, got = reference.at(quantity, step), run.at(quantity, step)
        if expected is not None or got is not None:
            found.append(Apart(step, expected, got, signed_ulp(expected, got)))
    return found


def signed_ulp(expected: float | None, got: float | None) -> float:
    """Units in the last place from `expected` to `got`; half a unit where they differ by less than one."""
    if expected is None or got is None:
        return 0.0 if expected is got else math.inf
    if expected == got or (math.isnan(expected) and math.isnan(got)):
        return 0.0
    if math.isnan(expected) or math.isnan(got):
        return math.inf
    return math.copysign(ulp_distance(expected, got) or 0.5, got - expected)


def height_of(ulp: float) -> float:
    """The place of a difference on the scale: linear up to one ulp, logarithmic from there on."""
    size = abs(ulp)
    return math.copysign(size if size <= 1 else 1 + math.log10(size), ulp)


def summary(quantity: str, reference: RecordedRun, run: RecordedRun) -> str:
    """The picture in a sentence, for one run."""
    apart = differences(quantity, reference, run)
    unequal = [each for each in apart if each.ulp]
    if not apart:
        return "nothing was recorded"
    if not unequal:
        return f"equal at all {len(apart)} steps" if len(apart) > 1 else f"equal at step {apart[0].step}"
    largest = max(unequal, key=lambda each: abs(each.ulp))
    text = f"first differs at {unequal[0].words}"
    return text if largest is unequal[0] else f"{text}; most at {largest.words}"


def curves(quantity: str, reference: RecordedRun, runs: Sequence[RecordedRun]) -> str | None:
    """The SVG of a quantity; None where no run has recorded it."""
    values = [value for run in (reference, *runs) for value in getattr(run, quantity) if _finite(value)]
    if not values:
        return None
    label = "; ".join(f"{run.name}: {summary(quantity, reference, run)}" for run in runs)
    svg = picture(WIDTH, TOP + CURVES + GAP + BELOW + BOTTOM, f"{QUANTITIES[quantity]} by step. {label}")
    axis = Axis(max(run.last_step for run in (reference, *runs)), LEFT, WIDTH - RIGHT)
    _steps(svg, axis)
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    _levels(svg, low, high)

    def place(value: float) -> float:
        return round(TOP + CURVES * (1 - (value - low) / (high - low)), 1)

    for index, run in enumerate((reference, *runs)):
        name = "curve reference" if not index else f"curve resumed run-{index}"
        steps = range(run.first_step + 1, run.last_step + 1)
        for path in _paths(axis, place, [(step, run.at(quantity, step)) for step in steps]):
            element(svg, "path", d=path, class_=name)
        if index:
            x = axis(run.first_step)
            element(svg, "line", x1=x, x2=x, y1=TOP, y2=TOP + CURVES, class_=f"start-line run-{index}")
    _differences(svg, axis, [differences(quantity, reference, run) for run in runs])
    return markup(svg)


def _steps(svg: Tree.Element, axis: Axis) -> None:
    bottom = TOP + CURVES + GAP + BELOW
    for step in step_ticks(axis.last):
        for top, end in ((TOP, TOP + CURVES), (TOP + CURVES + GAP, bottom)):
            element(svg, "line", x1=axis(step), x2=axis(step), y1=top, y2=end, class_="grid")
        element(svg, "text", str(step), x=axis(step), y=bottom + 18, class_="tick middle")


def _levels(svg: Tree.Element, low: float, high: float) -> None:
    for part in (0, 0.5, 1):
        y = TOP + CURVES * (1 - part)
        element(svg, "line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid")
        element(svg, "text", number(low + (high - low) * part, 4), x=LEFT - 10, y=y + 4, class_="tick end")


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _paths(axis: Axis, place: Callable[[float], float], points: Sequence[tuple[int, float | None]]) -> list[str]:
    """Lines through the points; a value that is not finite leaves a gap, and a point between two gaps is a dot."""
    stretches: list[list[tuple[int, float]]] = [[]]
    for step, value in points:
        if value is not None and math.isfinite(value):
            stretches[-1].append((step, value))
        elif stretches[-1]:
            stretches.append([])
    paths: list[str] = []
    for stretch in stretches:
        drawn = [f"{axis(step)} {place(value)}" for step, value in _thinned(stretch)]
        if drawn:
            paths.append(f"M{'L'.join(drawn)}" if len(drawn) > 1 else f"M{drawn[0]}h0.1")
    return paths


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Of very many points the lowest and the highest of each stretch."""
    if len(points) <= MOST_POINTS:
        return points
    size = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[tuple[int, float]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        extremes = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(extremes)
    return kept


def _differences(svg: Tree.Element, axis: Axis, runs: Sequence[Sequence[Apart]]) -> None:
    middle, half = TOP + CURVES + GAP + BELOW / 2, BELOW / 2
    finite = [height_of(each.ulp) for apart in runs for each in apart if math.isfinite(each.ulp)]
    reach = max(2.0, math.ceil(max(map(abs, finite), default=0.0)))

    def place(ulp: float) -> float:
        return round(middle - half * (height_of(ulp) / reach if math.isfinite(ulp) else 1.0), 1)

    one = place(1)
    element(svg, "rect", x=LEFT, y=one, width=WIDTH - RIGHT - LEFT, height=2 * (middle - one), class_="one-ulp")
    element(svg, "text", "1 ulp", x=WIDTH - RIGHT + 8, y=one + 4, class_="tick")
    for ulp, text in _scale(int(reach)):
        y = place(ulp)
        element(svg, "line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid" if ulp else "zero")
        element(svg, "text", text, x=LEFT - 10, y=y + 4, class_="tick end")
    for index, apart in enumerate(runs):
        places = [(axis(each.step), place(each.ulp)) for each in _largest(apart)]
        if places:
            stems, heads = (f"M{x} {middle}V{y}" for x, y in places), (f"M{x} {y}h0" for x, y in places)
            element(svg, "path", d="".join(stems), class_=f"stems run-{index + 1}")
            element(svg, "path", d="".join(heads), class_=f"heads run-{index + 1}")
        if apart and not any(each.ulp for each in apart):
            ends = axis(apart[0].step), axis(apart[-1].step)
            element(svg, "line", x1=ends[0], x2=ends[1], y1=middle, y2=middle, class_=f"curve same run-{index + 1}")


def _scale(reach: int) -> list[tuple[float, str]]:
    """Marks of the scale of the difference: zero, and powers of ten up to its ends."""
    top = reach - 1
    powers = sorted({top, *range(top, 0, -2 if top > 3 else -1)}) if top else []
    marks: list[tuple[float, str]] = [(0.0, "0")]
    for power in powers:
        size = f"{10**power:,}" if power < 4 else f"1e{power}"
        marks += [(10.0**power, f"+{size}"), (-(10.0**power), f"-{size}")]
    return marks


def _largest(apart: Sequence[Apart]) -> list[Apart]:
    """The differences that are not zero; of very many the largest of each stretch."""
    size = math.ceil(len(apart) / MOST_POINTS) or 1
    stretches = [apart[start : start + size] for start in range(0, len(apart), size)]
    largest = [max(stretch, key=lambda each: abs(each.ulp)) for stretch in stretches]
    return [each for each in largest if each.ulp]
