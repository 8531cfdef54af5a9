"""The experiment as a picture: which runs were made, from where they were resumed, and where they part.

In flow a verdict and its evidence, out flows an SVG. Elements are made as a tree, so what a target is called cannot
become markup.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from xml.etree import ElementTree as Tree

from resumecheck.evidence import Evidence, RecordedRun
from resumecheck.report.wording import failed_points, kinds_of_failure
from resumecheck.verdict import ResumePoint, Verdict

WIDTH, LEFT, RIGHT = 960, 156, 250
ROW, TOP, BOTTOM = 34, 40, 30

#: So many resumed runs are drawn; those that failed come first.
MOST_RUNS = 10


def shown_points(verdict: Verdict, most: int = MOST_RUNS) -> list[ResumePoint]:
    """The resume points to draw: one of each kind of failure, then other failures, then the rest; in order of step."""
    failed = failed_points(verdict)
    first = [points[0] for points in kinds_of_failure(failed)]
    ranked = [*first, *(point for point in failed if point not in first)]
    ranked += [point for point in verdict.resume_points if point not in failed]
    return sorted(ranked[:most], key=lambda point: (point.resumes, point.step))


def step_ticks(last: int, most: int = 12) -> list[int]:
    """Round step numbers from 0 to `last`, at most about `most` of them."""
    unit = next(unit * 10**power for power in range(9) for unit in (1, 2, 5) if last <= unit * 10**power * most)
    return list(range(0, last + 1, unit))


@dataclasses.dataclass(frozen=True)
class Axis:
    """The horizontal axis of steps: `axis(5)` is where the end of step 5 is."""

    last: int
    left: float
    right: float

    def __call__(self, step: float) -> float:
        """Where the end of a step is."""
        return round(self.left + (self.right - self.left) * step / max(1, self.last), 1)


def element(parent: Tree.Element, tag: str, text: str = "", **attributes: object) -> Tree.Element:
    """A child element; `class_` and `stroke_width` are the attributes `class` and `stroke-width`."""
    named = {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items()}
    child = Tree.SubElement(parent, tag, named)
    child.text = text or None
    return child


def picture(width: float, height: float, label: str) -> Tree.Element:
    """An empty SVG that a screen reader announces as `label`."""
    return Tree.Element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label})


def markup(svg: Tree.Element) -> str:
    """An SVG as text to put into a page."""
    return Tree.tostring(svg, encoding="unicode")


def timeline(verdict: Verdict, evidence: Evidence) -> str:
    """The SVG of an experiment."""
    points = shown_points(verdict)
    height = TOP + ROW * (2 + len(points)) + BOTTOM
    svg = picture(WIDTH, height, _words(verdict, points))
    axis = Axis(max(verdict.steps, evidence.reference.last_step), LEFT, WIDTH - RIGHT)
    _grid(svg, axis, evidence.steps_per_epoch, height)
    _uninterrupted(svg, axis, verdict, evidence, points)
    for index, point in enumerate(points):
        found = evidence.of(point.step, point.resumes)
        _resumed(svg, axis, TOP + ROW * (2 + index), point, found.run if found is not None else None)
    return markup(svg)


def _words(verdict: Verdict, points: Sequence[ResumePoint]) -> str:
    said = [f"resumed from step {point.step}: {_end(point)[0]}" for point in points]
    return f"Timeline of {verdict.steps} steps: the reference run, the source run, and {'; '.join(said) or 'no other'}"


def _grid(svg: Tree.Element, axis: Axis, per_epoch: int | None, height: float) -> None:
    bottom = height - BOTTOM
    for step in step_ticks(axis.last):
        element(svg, "line", x1=axis(step), x2=axis(step), y1=TOP - 6, y2=bottom, class_="grid")
        element(svg, "text", str(step), x=axis(step), y=bottom + 18, class_="tick middle")
    element(svg, "text", "step", x=WIDTH - RIGHT + 20, y=bottom + 18, class_="tick")
    epochs = range(per_epoch, axis.last, per_epoch) if per_epoch and axis.last / per_epoch <= 20 else ()
    for number, step in enumerate(epochs):
        element(svg, "line", x1=axis(step), x2=axis(step), y1=TOP - 14, y2=bottom, class_="epoch")
        element(svg, "text", f"epoch {number + 2}", x=axis(step) + 4, y=TOP - 16, class_="tick")


def _uninterrupted(
    svg: Tree.Element, axis: Axis, verdict: Verdict, evidence: Evidence, points: Sequence[ResumePoint]
) -> None:
    said = ("no interruption", "note"), _source_note(verdict)
    for index, run in enumerate((evidence.reference, evidence.source)):
        y = TOP + ROW * index + ROW / 2
        element(svg, "text", ("Reference", "Source")[index], x=0, y=y + 4, class_="label")
        element(svg, "line", x1=axis(run.first_step), x2=axis(run.last_step), y1=y, y2=y, class_="run plain")
        for step in run.evaluations:
            mark = element(svg, "circle", cx=axis(step), cy=y, r=3, class_="evaluation")
            element(mark, "title", f"evaluation after step {step}")
        element(svg, "text", said[index][0], x=WIDTH - RIGHT + 14, y=y + 4, class_=said[index][1])
    parting = evidence.source.parts_from(evidence.reference)
    if parting is not None and said[1][1] != "note":
        _cross(svg, axis(parting), TOP + ROW * 1.5, f"source and reference part at step {parting}")
    y = TOP + ROW * 1.5
    for index, point in enumerate(points):
        below = TOP + ROW * (2 + index) + ROW / 2
        if point.resumes == 1:
            element(svg, "line", x1=axis(point.step), x2=axis(point.step), y1=y, y2=below, class_="link")
    for step in evidence.source.checkpoints:
        x = axis(step)
        mark = element(svg, "path", d=f"M{x} {y - 6}l6 6l-6 6l-6-6z", class_="checkpoint")
        element(mark, "title", f"checkpoint after step {step}")


def _resumed(svg: Tree.Element, axis: Axis, top: float, point: ResumePoint, run: RecordedRun | None) -> None:
    y = top + ROW / 2
    again = " (again)" if point.resumes > 1 else ""
    element(svg, "text", f"Resumed from {point.step}{again}", x=0, y=y + 4, class_="label")
    start, end = axis(point.step), axis(run.last_step if run is not None else point.step)
    divergence = point.first_divergence
    failed = point.verdict != "equivalent"
    parting = start
    if failed and divergence is not None:
        parting = min(max(start, axis(divergence.step - 1)), max(start, end))
    if parting > start or not failed:
        element(svg, "line", x1=start, x2=parting if failed else end, y1=y, y2=y, class_="run same")
    if failed and end > parting:
        element(svg, "line", x1=parting, x2=end, y1=y, y2=y, class_="run apart")
    element(svg, "circle", cx=start, cy=y, r=4.5, class_="start")
    said, kind = _end(point)
    before = divergence is not None and divergence.step <= point.step  # Then the source run has the mark.
    if failed and not before:
        x = parting if end <= parting else axis(min(divergence.step, axis.last)) if divergence else parting
        _cross(svg, x, y, said)
    element(svg, "text", said, x=WIDTH - RIGHT + 14, y=y + 4, class_=f"note {kind}")


def _cross(svg: Tree.Element, x: float, y: float, title: str) -> None:
    mark = element(svg, "path", d=f"M{x - 5} {y - 5}l10 10m0-10l-10 10", class_="cross")
    element(mark, "title", title)


def _source_note(verdict: Verdict) -> tuple[str, str]:
    """What is to be said of the source run, and the class of the text."""
    if verdict.verdict == "nondeterministic":
        return "not the reference run again", "note bad"
    if any(finding.component == "saving" for point in verdict.resume_points for finding in point.findings):
        return "saving changes the run", "note bad"
    return "writes the checkpoints", "note"


def _end(point: ResumePoint) -> tuple[str, str]:
    """What became of a resumed run, and the class of its text."""
    if point.verdict == "equivalent":
        to = "to the end" if point.horizon == "end" else "to the next point"
        return f"the same run {to}", "good"
    divergence = point.first_divergence
    if divergence is None:
        return point.verdict, "bad"
    if divergence.component == "resume-failure":
        return f"fails at step {divergence.step}", "bad"
    return f"step {divergence.step}: {divergence.component}", "bad"
