"""What came back after each death in a save, as text: outcomes with their counts, the events, and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from resumecheck.crash.verdict import ENDINGS, CrashVerdict, Death
from resumecheck.report.doctor_text import printable, wrapped
from resumecheck.report.terminal import COLOURS
from resumecheck.report.wording import target_name

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 110

#: What a save does in an event, in front of the name of the file.
_WORDS = {
    "create": "create",
    "write": "write",
    "sync": "sync",
    "rename": "rename",
    "remove": "remove",
    "mkdir": "make directory",
    "rmdir": "remove directory",
    "truncate": "truncate",
    "link": "link",
}


def headline(verdict: CrashVerdict) -> str:
    """The verdict in half a sentence."""
    if verdict.verdict == "error":
        return "the target failed, so no save was killed"
    if verdict.verdict == "nondeterministic" and not verdict.deaths:
        return "the uninterrupted run does not repeat itself, so a resume cannot be judged"
    bad = sum(not death.good for death in verdict.deaths)
    if not bad:
        return "wherever it dies in a save, a resumed run is the same run"
    return f"{bad} of {len(verdict.deaths)} ways to die in a save do not end in the same run"


def render(verdict: CrashVerdict, console: Console) -> None:
    """Print the outcomes for a person."""
    from rich.text import Text

    colour = COLOURS[verdict.verdict]
    name = printable(target_name(verdict))
    console.print(
        Text.assemble((verdict.verdict.upper(), f"bold {colour}"), f"  {name}: {headline(verdict)}"), soft_wrap=True
    )
    for line in _body(verdict):
        console.print(Text(line, style="bold" if line[:1].isdigit() else ""), soft_wrap=True)


def _body(verdict: CrashVerdict) -> Iterator[str]:
    if verdict.error:
        yield ""
        yield from (f"  {printable(line)}" for line in verdict.error.rstrip().splitlines())
        return
    for finding in verdict.findings:
        yield ""
        yield from wrapped("cause", f"{finding.code} {finding.component}, {finding.status}: {finding.message}")
        yield from wrapped("what to do", finding.advice)
    if verdict.deaths:
        yield f"  {_experiment(verdict)}"
    for name in ENDINGS:
        deaths = [death for death in verdict.deaths if death.ending == name]
        if deaths:
            yield ""
            yield from _outcome(name, deaths, len(verdict.deaths))
    if verdict.deaths:
        yield ""
        for note in verdict.notes:
            yield from wrapped("note", note)


def _experiment(verdict: CrashVerdict) -> str:
    tried = len(verdict.deaths)
    parts = [
        f"the save after step {verdict.at} of {verdict.steps}",
        f"{verdict.events} events in its files",
        f"{tried} ways to die" if tried == verdict.ways else f"{tried} of {verdict.ways} ways to die",
    ]
    parts += [f"{name} {verdict.versions[name]}" for name in ("torch", "transformers") if name in verdict.versions]
    return "; ".join(parts)


def _outcome(name: str, deaths: Sequence[Death], tried: int) -> Iterator[str]:
    """An outcome: how often, where, and what to do."""
    from resumecheck.diagnose.findings import BY_COMPONENT

    ending = ENDINGS[name]
    yield f"{len(deaths)} of {tried}  {name}: {ending.meaning}"
    for detail in dict.fromkeys(death.detail for death in deaths):
        alike = [death for death in deaths if death.detail == detail]
        if detail:
            yield from textwrap.wrap(
                printable(detail), WIDTH, initial_indent="    ", subsequent_indent="      ", break_long_words=False
            )
        yield from _events(alike)
    if not ending.good:
        yield from wrapped("what to do", ending.advice)
        code = BY_COMPONENT[ending.component].code
        yield from wrapped("more", f"resumecheck explain {code}")


def _events(deaths: Sequence[Death]) -> Iterator[str]:
    """One line for each event, with the ways to die there."""
    by_event: dict[int, list[Death]] = {}
    for death in deaths:
        by_event.setdefault(death.number, []).append(death)
    for number, ways in by_event.items():
        first = ways[0]
        how = " and ".join("torn" if death.torn else "before" for death in ways)
        steps = sorted({death.step for death in ways if death.step})
        on = f"   from step {', '.join(map(str, steps))}" if steps else ""
        if first.kind == "end":
            yield f"  {number:>6}  after the last event{on}"
        else:
            yield f"  {number:>6}  {how:<15}  {_WORDS[first.kind]} {printable(first.path)}{on}"
