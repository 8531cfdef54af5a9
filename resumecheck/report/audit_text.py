"""An audit as text: a line for each start of the run, then what each resume that is not exact has lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from resumecheck.report import terminal
from resumecheck.report.doctor_text import printable, wrapped
from resumecheck.report.terminal import finding_lines, point_lines
from resumecheck.verdict import ResumePoint

if TYPE_CHECKING:
    from rich.console import Console

    from resumecheck.production.result import Audit, Resume, Segment

WIDTH = terminal.WIDTH

_MEANING = {
    "exact": "every resume was exact",
    "state-equal": "every resume starts from the state that was saved; of one no step was executed twice",
    "diverged": "a resume was not exact",
    "started-over": "the run started over",
    "not-checkable": "a resume cannot be checked",
    "no-resume": "the run was never resumed",
}
_COLOURS = {"exact": "green", "state-equal": "green", "no-resume": "yellow", "not-checkable": "yellow"}


def render(audit: Audit, console: Console) -> None:
    """Print an audit for a person."""
    from rich.text import Text

    word = audit.verdict.upper().replace("-", " ")
    title = Text.assemble(
        (word, f"bold {_COLOURS.get(audit.verdict, 'red')}"), f"  {printable(audit.record)}: {_MEANING[audit.verdict]}"
    )
    console.print(title, soft_wrap=True)
    console.print(_table(audit))
    for resume in audit.resumes:
        for line in _resume(resume):
            console.print(Text(printable(line)), soft_wrap=True)
    for note in audit.notes:
        console.print("")
        for line in wrapped("note", note):
            console.print(Text(line), soft_wrap=True)


def _table(audit: Audit) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    for column in ("segment", "steps", "ended", "resumed after", "verdict"):
        table.add_column(column, header_style="dim", overflow="fold")
    resumes = {resume.segment: resume for resume in audit.resumes}
    for segment in audit.segments:
        cells = (str(segment.number), _steps(segment), segment.ended, *_from(resumes.get(segment.number)))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _steps(segment: Segment) -> str:
    if segment.first_step is None or segment.last_step is None:
        return "none"
    if segment.first_step == segment.last_step:
        return f"none after {segment.first_step}"
    return f"{segment.first_step + 1}-{segment.last_step}"


def _from(resume: Resume | None) -> tuple[str, str]:
    if resume is None:
        return "", ""
    if resume.verdict == "started-over":
        return "nothing", resume.verdict
    where = f"step {resume.step}" + (f" of segment {resume.continues}" if resume.continues is not None else "")
    twice = f", {resume.executed_twice} steps executed twice" if resume.executed_twice else ""
    return where, f"{resume.verdict}{twice}"


def _resume(resume: Resume) -> Iterator[str]:
    """What is worth saying of a resume; nothing of one that is exact and changed nothing."""
    title = f"segment {resume.segment}, resumed after step {resume.step}"
    if resume.verdict == "started-over":
        yield ""
        yield f"segment {resume.segment} started over"
        yield from finding_lines(resume.findings[0], "cause")
    elif resume.first_divergence is not None:
        yield ""
        yield from point_lines(
            ResumePoint(
                resume.step,
                "end",
                "diverged",
                resume.first_divergence,
                resume.findings,
                window=resume.window,
                compared=resume.executed_twice,
            ),
            title,
            "interrupted -> resumed",
        )
    elif resume.notes or resume.latent:
        yield ""
        yield f"{title}: {resume.verdict}"
    for found in resume.latent:
        yield from finding_lines(found, "latent")
    for note in resume.notes:
        yield from wrapped("note", note)
