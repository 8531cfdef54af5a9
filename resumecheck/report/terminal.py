"""The verdict as text: `explanation` for a failing test and a CI log, `render` for the command line.

The text names, for each resume point that failed, the first difference in causal order, its causes, and the steps
around it. Resume points that failed in the same way are listed in one line, so that a log stays readable.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from resumecheck.report.wording import (
    LISTED_POINTS,
    MEANING,
    STEP_FIELDS,
    as_pair,
    cell,
    command_to_repeat,
    distance,
    experiment,
    failed_points,
    first_difference,
    kinds_of_failure,
    known_fields,
    latent_findings,
    numbers,
    shortened,
    target_name,
    what_differs,
)
from resumecheck.state.components import RUNGS

if TYPE_CHECKING:
    from rich.console import Console

    from resumecheck.verdict import Finding, ResumePoint, StepPair, Verdict

WIDTH = 100
_SIDES = "uninterrupted -> resumed"

COLOURS = {"equivalent": "green", "diverged": "red", "nondeterministic": "yellow", "error": "red"}


def headline(verdict: Verdict) -> str:
    """The verdict in one line, for a summary: what, where first, and how many resume points."""
    failed = failed_points(verdict)
    if verdict.verdict != "diverged" or not failed:
        return f"{verdict.verdict}: {MEANING[verdict.verdict]}"
    first = failed[0].first_divergence
    where = f"at step {first.step} in {first.component}" if first else f"({first_difference(failed[0])})"
    total = len(verdict.resume_points)
    of_points = f" ({len(failed)} of {total} resume points)" if total > 1 else ""
    return f"diverged {where}, resumed from step {failed[0].step}{of_points}"


def explanation(verdict: Verdict, reproduce: str | None = None) -> str:
    """The whole verdict as plain text.

    Args:
        verdict: what a check found.
        reproduce: the command that repeats the check; by default the command line, where the target has a name.
    """
    first_line = f"{verdict.verdict.upper()}  {target_name(verdict)}: {MEANING[verdict.verdict]}"
    return "\n".join([first_line, f"  {experiment(verdict)}", *_body(verdict, reproduce)])


def render(verdict: Verdict, console: Console) -> None:
    """Print the verdict for a person: coloured verdict, a table of the resume points, then the explanation."""
    from rich.text import Text

    colour = COLOURS[verdict.verdict]
    console.print(
        Text.assemble(
            (verdict.verdict.upper(), f"bold {colour}"), f"  {target_name(verdict)}: {MEANING[verdict.verdict]}"
        ),
        soft_wrap=True,
    )
    console.print(Text(f"  {experiment(verdict)}", style="dim"), soft_wrap=True)
    if verdict.resume_points and verdict.verdict in ("equivalent", "diverged"):
        console.print(_table_of_points(verdict))
    for line in _body(verdict, None):
        console.print(Text(line, style=_line_style(line)), soft_wrap=True)


def _body(verdict: Verdict, reproduce: str | None) -> Iterator[str]:
    for finding in verdict.findings:
        yield ""
        yield from finding_lines(finding, "cause")
    if verdict.error:
        yield ""
        yield from textwrap.indent(verdict.error.rstrip(), "  ").splitlines()
    failed = failed_points(verdict)
    if verdict.verdict == "diverged":
        yield from _failed_points(failed)
        passed = [point for point in verdict.resume_points if point.verdict == "equivalent"]
        if passed:
            yield ""
            yield from _wrapped("equivalent", numbers(passed), "  ")
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
        again = reproduce or command_to_repeat(verdict, failed)
        if again:
            yield ""
            yield f"  reproduce   {again}"


def _failed_points(failed: Sequence[ResumePoint]) -> Iterator[str]:
    """The first resume point of each kind of failure in full, the others of that kind in one line."""
    for points in kinds_of_failure(failed):
        yield ""
        yield from point_lines(points[0])
        if len(points) > 1:
            yield ""
            yield from _wrapped("likewise", f"resumed from {numbers(points[1:])}", "  ")


def point_lines(point: ResumePoint, title: str | None = None, sides: str = _SIDES) -> Iterator[str]:
    """A resumed run that is another run: where, what, why, and the steps around it."""
    again = "a second time " if point.resumes > 1 else ""
    yield f"{title or f'resumed {again}from step {point.step}'}: {first_difference(point)}"
    divergence = point.first_divergence
    if divergence is not None:
        rung = RUNGS.get(divergence.rung)
        yield from _wrapped("where", f"{divergence.rung}{f': {rung}' if rung else ''}", "  ")
        yield from _wrapped("what", what_differs(divergence), "  ")
        expected, got = as_pair(divergence.expected, divergence.got)
        yield f"  expected    {shortened(expected, WIDTH - 14)}"
        apart = distance(divergence)
        yield f"  got         {shortened(got, WIDTH - 14)}{f'   ({apart})' if apart else ''}"
    for index, finding in enumerate(point.findings):
        yield from finding_lines(finding, "cause" if index == 0 else "also")
    if point.window:
        yield ""
        yield from window_lines(point.window, sides)


def finding_lines(finding: Finding, label: str) -> Iterator[str]:
    """A finding, and what to do about it."""
    yield from _wrapped(label, f"{finding.code} {finding.component}, {finding.status}: {finding.message}", "  ")
    if finding.advice:
        yield from _wrapped("what to do", finding.advice, "  ")


def _latent(verdict: Verdict) -> Iterator[str]:
    found = latent_findings(verdict)
    if found:
        yield ""
        yield "  came back different, without effect on the steps that were run"
    for finding, points in found:
        text = f"{finding.code} {finding.component}: {finding.message} (resumed from {numbers(points)})"
        yield from textwrap.wrap(text, WIDTH, initial_indent="    - ", subsequent_indent="      ", **_WORDS)


def window_lines(window: Sequence[StepPair], sides: str = _SIDES) -> Iterator[str]:
    """The steps around the difference, both sides where the two differ."""
    known = known_fields(window)
    rows = [["", "step", *(STEP_FIELDS[field] for field in known)]]
    for pair in window:
        cells = [cell(pair, field) for field in known]
        rows.append(["" if pair.equal or pair.got is None else ">", str(pair.step), *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    yield f"  the steps around it ({sides} where they differ)"
    for row in rows:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _wrapped(label: str, text: str, indent: str) -> list[str]:
    first = f"{indent}{label:<12}"
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), **_WORDS)


def _table_of_points(verdict: Verdict) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for title in ("  resumed from", "to", "steps compared", "verdict", "first difference", "cause"):
        table.add_column(title, header_style="dim")
    points = verdict.resume_points
    shown = points if len(points) <= LISTED_POINTS else tuple(failed_points(verdict))[:LISTED_POINTS]
    for point in shown:
        divergence = point.first_divergence
        cause = f"{point.findings[0].code}, {point.findings[0].status}" if point.findings else ""
        table.add_row(
            f"  {point.step}" + (" (second resume)" if point.resumes > 1 else ""),
            "the end" if point.horizon == "end" else "the next point",
            str(point.compared),
            f"[{COLOURS[point.verdict]}]{point.verdict}[/]",
            f"step {divergence.step}, {divergence.component}" if divergence else "",
            cause,
        )
    for outcome, colour in COLOURS.items():
        others = [point for point in points if point not in shown and point.verdict == outcome]
        if others:
            table.add_row(f"  {numbers(others)}", "", "", f"[{colour}]{outcome}[/]")
    return table


def _line_style(line: str) -> str:
    if line.startswith(("resumed from", "  cause")):
        return "bold"
    return "red" if line.startswith("  > ") else ""
