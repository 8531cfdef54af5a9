"""The verdict as text: `explanation` for a failing test and a CI log, `render` for the command line.

The text names, for each resume point that failed, the first difference in causal order, its causes, and the steps
around it. Resume points that failed in the same way are listed in one line, so that a log stays readable.
"""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from resumecheck.state.components import COMPONENTS, RUNGS

if TYPE_CHECKING:
    from rich.console import Console

    from resumecheck.verdict import Divergence, Finding, ResumePoint, StepPair, Verdict

WIDTH = 100
LONGEST_SAMPLES = 32
LISTED_POINTS = 12

_MEANING = {
    "equivalent": "a resumed run is the same run",
    "diverged": "a resumed run is not the same run",
    "nondeterministic": "the uninterrupted run does not repeat itself, so resume cannot be judged",
    "error": "the target failed, so resume cannot be judged",
}
_COLOURS = {"equivalent": "green", "diverged": "red", "nondeterministic": "yellow", "error": "red"}


def headline(verdict: Verdict) -> str:
    """The verdict in one line, for a summary: what, where first, and how many resume points."""
    failed = _failed(verdict)
    if verdict.verdict != "diverged" or not failed:
        return f"{verdict.verdict}: {_MEANING[verdict.verdict]}"
    first = failed[0].first_divergence
    where = f"at step {first.step} in {first.component}" if first else f"({_first_difference(failed[0])})"
    total = len(verdict.resume_points)
    of_points = f" ({len(failed)} of {total} resume points)" if total > 1 else ""
    return f"diverged {where}, resumed from step {failed[0].step}{of_points}"


def explanation(verdict: Verdict, reproduce: str | None = None) -> str:
    """The whole verdict as plain text.

    Args:
        verdict: what a check found.
        reproduce: the command that repeats the check; by default the command line, where the target has a name.
    """
    first_line = f"{verdict.verdict.upper()}  {_target(verdict)}: {_MEANING[verdict.verdict]}"
    return "\n".join([first_line, f"  {_experiment(verdict)}", *_body(verdict, reproduce)])


def render(verdict: Verdict, console: Console) -> None:
    """Print the verdict for a person: coloured verdict, a table of the resume points, then the explanation."""
    from rich.text import Text

    colour = _COLOURS[verdict.verdict]
    console.print(
        Text.assemble(
            (verdict.verdict.upper(), f"bold {colour}"), f"  {_target(verdict)}: {_MEANING[verdict.verdict]}"
        ),
        soft_wrap=True,
    )
    console.print(Text(f"  {_experiment(verdict)}", style="dim"), soft_wrap=True)
    if verdict.resume_points and verdict.verdict in ("equivalent", "diverged"):
        console.print(_table_of_points(verdict))
    for line in _body(verdict, None):
        console.print(Text(line, style=_line_style(line)), soft_wrap=True)


def _body(verdict: Verdict, reproduce: str | None) -> Iterator[str]:
    for finding in verdict.findings:
        yield ""
        yield from _finding(finding, "cause")
    if verdict.error:
        yield ""
        yield from textwrap.indent(verdict.error.rstrip(), "  ").splitlines()
    failed = _failed(verdict)
    if verdict.verdict == "diverged":
        yield from _failed_points(failed)
        passed = [point for point in verdict.resume_points if point.verdict == "equivalent"]
        if passed:
            yield ""
            yield from _wrapped("equivalent", _numbers(passed), "  ")
    yield from _latent(verdict)
    if verdict.notes:
        yield ""
        yield "  not checked, or overridden"
        for note in verdict.notes:
            yield from textwrap.wrap(note, WIDTH, initial_indent="    - ", subsequent_indent="      ", **_WORDS)
    if verdict.kept:
        yield ""
        yield f"  the recorded runs are in {verdict.kept}"
    if verdict.verdict != "equivalent":
        again = reproduce or _command(verdict, failed)
        if again:
            yield ""
            yield f"  reproduce   {again}"


def _target(verdict: Verdict) -> str:
    """The name of the target, with the path of its file as it is from here."""
    file, separator, factory = verdict.target.rpartition(":")
    if not os.path.isabs(file) or not os.path.exists(file):
        return verdict.target
    return f"{min(os.path.relpath(file), file, key=len)}{separator}{factory}"


def _experiment(verdict: Verdict) -> str:
    """What was done, in a line: length, tolerance, work, versions."""
    parts = [f"{verdict.steps} steps", f"tolerance {verdict.tolerance}"]
    if verdict.resume_points:
        parts.append(f"resumed from {_numbers(verdict.resume_points)}")
    parts.append(f"{verdict.steps_executed} steps executed")
    parts += [f"{name} {verdict.versions[name]}" for name in ("torch", "transformers") if name in verdict.versions]
    return "; ".join(parts)


def _failed_points(failed: Sequence[ResumePoint]) -> Iterator[str]:
    """The first resume point of each kind of failure in full, the others of that kind in one line."""
    kinds: dict[tuple[str, ...], list[ResumePoint]] = {}
    for point in failed:
        kinds.setdefault(_kind(point), []).append(point)
    for points in kinds.values():
        yield ""
        yield from _point(points[0])
        if len(points) > 1:
            yield ""
            yield from _wrapped("likewise", f"resumed from {_numbers(points[1:])}", "  ")


def _kind(point: ResumePoint) -> tuple[str, ...]:
    divergence = point.first_divergence
    causes = [f"{finding.code} {finding.component}" for finding in point.findings]
    return (divergence.rung, divergence.component, *causes) if divergence else tuple(causes)


def _point(point: ResumePoint) -> Iterator[str]:
    again = "a second time " if point.resumes > 1 else ""
    yield f"resumed {again}from step {point.step}: {_first_difference(point)}"
    divergence = point.first_divergence
    if divergence is not None:
        rung = RUNGS.get(divergence.rung)
        yield from _wrapped("where", f"{divergence.rung}{f': {rung}' if rung else ''}", "  ")
        yield from _wrapped("what", _what(divergence), "  ")
        expected, got = _as_pair(divergence.expected, divergence.got)
        yield f"  expected    {_shortened(expected, WIDTH - 14)}"
        yield f"  got         {_shortened(got, WIDTH - 14)}{_distance(divergence)}"
    for index, finding in enumerate(point.findings):
        yield from _finding(finding, "cause" if index == 0 else "also")
    if point.window:
        yield ""
        yield from window_lines(point.window)


def _first_difference(point: ResumePoint) -> str:
    divergence = point.first_divergence
    if divergence is None:
        return f"{point.findings[0].component}: {point.findings[0].message}" if point.findings else point.verdict
    return f"the first difference is at step {divergence.step}, in {divergence.component}"


def _what(divergence: Divergence) -> str:
    meaning = COMPONENTS.get(divergence.component)
    what = divergence.quantity if not divergence.name else f"{divergence.quantity} of {divergence.name}"
    return f"{what} ({divergence.component}{f': {meaning}' if meaning else ''})"


def _distance(divergence: Divergence) -> str:
    parts = []
    if divergence.max_abs is not None:
        parts.append(f"max abs {_number(divergence.max_abs, 4)}")
    if divergence.max_ulp is not None:
        parts.append(f"{divergence.max_ulp:,} ulp")
    return f"   ({', '.join(parts)})" if parts else ""


def _finding(finding: Finding, label: str) -> Iterator[str]:
    yield from _wrapped(label, f"{finding.code} {finding.component}, {finding.status}: {finding.message}", "  ")
    if finding.advice:
        yield from _wrapped("what to do", finding.advice, "  ")


def _latent(verdict: Verdict) -> Iterator[str]:
    """State that came back different and changed no step, once for each component and message."""
    points_of: dict[tuple[str, str, str], list[ResumePoint]] = {}
    for point in verdict.resume_points:
        for finding in point.latent:
            points_of.setdefault((finding.code, finding.component, finding.message), []).append(point)
    if points_of:
        yield ""
        yield "  came back different, without effect on the steps that were run"
    for (code, component, message), points in points_of.items():
        text = f"{code} {component}: {message} (resumed from {_numbers(points)})"
        yield from textwrap.wrap(text, WIDTH, initial_indent="    - ", subsequent_indent="      ", **_WORDS)


def window_lines(window: Sequence[StepPair], sides: str = "uninterrupted -> resumed") -> Iterator[str]:
    """The steps around the difference, both sides where the two differ."""
    fields = {"loss": "loss", "learning_rate": "learning rate", "grad_norm": "gradient norm", "samples": "samples"}
    known = [
        field for field in fields if any(field in (side or {}) for pair in window for side in (pair.expected, pair.got))
    ]
    rows = [["", "step", *(fields[field] for field in known)]]
    for pair in window:
        cells = [_cell(pair, field) for field in known]
        rows.append(["" if pair.equal or pair.got is None else ">", str(pair.step), *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    yield f"  the steps around it ({sides} where they differ)"
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(pair: StepPair, field: str) -> str:
    expected = (pair.expected or {}).get(field)
    if pair.got is None:
        return _text(expected)
    got = pair.got.get(field)
    if pair.expected is None:
        return f"(not run) -> {_text(got)}"
    return _text(expected) if expected == got or expected is got else " -> ".join(_as_pair(expected, got))


def _as_pair(expected: Any, got: Any) -> tuple[str, str]:
    """Two values with as many digits as it takes to see that they differ."""
    if isinstance(expected, float) and isinstance(got, float):
        for digits in (6, 9, 17):
            texts = _number(expected, digits), _number(got, digits)
            if texts[0] != texts[1]:
                return texts
    return _text(expected), _text(got)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return _number(value, 6)
    if isinstance(value, list | tuple):
        return _shortened(" ".join(_text(item) for item in value), LONGEST_SAMPLES)
    return str(value)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}g}"


def _shortened(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}..."


_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _wrapped(label: str, text: str, indent: str) -> list[str]:
    first = f"{indent}{label:<12}"
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), **_WORDS)


def _numbers(points: Iterable[ResumePoint]) -> str:
    """The steps of the points, neighbours as a range: `2, 5-9, 11`."""
    ranges: list[list[int]] = []
    for step in sorted(point.step for point in points):
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    texts = [f"{first}-{last}" if last > first else str(first) for first, last in ranges]
    if len(texts) > LISTED_POINTS:
        texts = [*texts[: LISTED_POINTS - 1], f"... {texts[-1]}"]
    return ", ".join(texts)


def _failed(verdict: Verdict) -> list[ResumePoint]:
    return [point for point in verdict.resume_points if point.verdict != "equivalent"]


def _command(verdict: Verdict, failed: Sequence[ResumePoint]) -> str | None:
    """The command that repeats the check, None where the target is an object that has no name on a command line."""
    if not re.fullmatch(r"[^<>]+:[A-Za-z_]\w*", verdict.target):
        return None
    words = ["resumecheck", "verify", _target(verdict), "--steps", str(verdict.steps)]
    points = failed or verdict.resume_points
    if points:
        words += ["--at", str(points[0].step)]
    if points and points[0].resumes > 1:
        words += ["--twice"]
    if verdict.tolerance != "bitwise":
        words += ["--tolerance", verdict.tolerance]
    return shlex.join(words)


def _table_of_points(verdict: Verdict) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for title in ("  resumed from", "to", "steps compared", "verdict", "first difference", "cause"):
        table.add_column(title, header_style="dim")
    points = verdict.resume_points
    shown = points if len(points) <= LISTED_POINTS else tuple(_failed(verdict))[:LISTED_POINTS]
    for point in shown:
        divergence = point.first_divergence
        cause = f"{point.findings[0].code}, {point.findings[0].status}" if point.findings else ""
        table.add_row(
            f"  {point.step}" + (" (second resume)" if point.resumes > 1 else ""),
            "the end" if point.horizon == "end" else "the next point",
            str(point.compared),
            f"[{_COLOURS[point.verdict]}]{point.verdict}[/]",
            f"step {divergence.step}, {divergence.component}" if divergence else "",
            cause,
        )
    for outcome, colour in _COLOURS.items():
        others = [point for point in points if point not in shown and point.verdict == outcome]
        if others:
            table.add_row(f"  {_numbers(others)}", "", "", f"[{colour}]{outcome}[/]")
    return table


def _line_style(line: str) -> str:
    if line.startswith(("resumed from", "  cause")):
        return "bold"
    return "red" if line.startswith("  > ") else ""
