"""Runs specimens through the check, and says for each what the check made of it.

In flow specimens and a `Workbench`, out flow `Result`s; a `Report` over them gives the table, the numbers and the JSON.
A specimen is well judged where its mutant is found at every resume point, and its twin is equivalent.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from resumecheck.errors import UsageError
from resumecheck.zoo.catalogue import SPECIMENS
from resumecheck.zoo.specimen import Specimen

if TYPE_CHECKING:
    from rich.table import Table

    from resumecheck.check import Workbench
    from resumecheck.verdict import Finding, Verdict

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Result:
    """What the check made of a specimen.

    Attributes:
        specimen: what was checked.
        mutant: the verdict on the mutant.
        twin: the verdict on its clean twin.
    """

    specimen: Specimen
    mutant: Verdict
    twin: Verdict

    @property
    def blamed(self) -> tuple[Finding, ...]:
        """The finding that comes first at each resume point, or the one about the run as a whole."""
        points = [point.findings[0] for point in self.mutant.resume_points if point.findings]
        return tuple(points) or self.mutant.findings[:1]

    @property
    def detected(self) -> bool:
        """Whether the mutant is found out at every resume point."""
        if self.specimen.component == "nondeterminism":
            return self.mutant.verdict == "nondeterministic"
        points = self.mutant.resume_points
        return bool(points) and all(point.verdict == "diverged" for point in points)

    @property
    def named(self) -> bool:
        """Whether the lost component comes first at every resume point."""
        return self._blames(self.specimen.component)

    @property
    def named_acceptably(self) -> bool:
        """Whether what comes first is the lost component or another view of the same defect."""
        return self._blames(*self.specimen.accepted)

    @property
    def confirmed(self) -> bool:
        """Whether the first finding is confirmed at every resume point."""
        return bool(self.blamed) and all(found.status == "confirmed" for found in self.blamed)

    @property
    def twin_left_alone(self) -> bool:
        """Whether the clean twin is found to be the same run."""
        return self.twin.equivalent

    @property
    def well_judged(self) -> bool:
        """What no specimen may fail."""
        return self.detected and self.twin_left_alone

    def _blames(self, *components: str) -> bool:
        return bool(self.blamed) and all(found.component in components for found in self.blamed)

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {
            **dataclasses.asdict(self.specimen),
            "detected": self.detected,
            "named": self.named,
            "named_acceptably": self.named_acceptably,
            "confirmed": self.confirmed,
            "twin_left_alone": self.twin_left_alone,
            "verdict": self.mutant.verdict,
            "blamed": [_facts(found) for found in self.blamed],
            "verdict_of_twin": self.twin.verdict,
            "blamed_in_twin": [_facts(found) for found in _all_findings(self.twin)],
            "errors": [verdict.error for verdict in (self.mutant, self.twin) if verdict.error],
            "steps_executed": self.mutant.steps_executed + self.twin.steps_executed,
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of a visit to the zoo."""

    results: tuple[Result, ...]

    @property
    def well_judged(self) -> bool:
        """Whether every mutant is found and no twin is blamed."""
        return all(result.well_judged for result in self.results)

    @property
    def numbers(self) -> dict[str, int]:
        """How many of what, in the order in which `summary` tells it."""
        return {
            "specimens": len(self.results),
            "mechanisms": len({result.specimen.mechanism for result in self.results}),
            "detected": sum(result.detected for result in self.results),
            "named": sum(result.named for result in self.results),
            "named_acceptably": sum(result.named_acceptably for result in self.results),
            "confirmed": sum(result.confirmed for result in self.results),
            "twins_blamed": sum(not result.twin_left_alone for result in self.results),
        }

    def summary(self) -> str:
        """The numbers in two lines."""
        numbers = self.numbers
        total = numbers["specimens"]

        def share(name: str) -> str:
            return f"{numbers[name]} of {total} ({numbers[name] / total:.0%})"

        return (
            f"{total} mutants by {numbers['mechanisms']} mechanisms: {share('detected')} detected, "
            f"{share('named')} with the lost component first,\n"
            f"{share('named_acceptably')} with an acceptable one first, {share('confirmed')} confirmed; "
            f"{numbers['twins_blamed']} of {total} clean twins blamed"
        )

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        versions = self.results[0].mutant.versions if self.results else {}
        return {
            "schema": SCHEMA_VERSION,
            "versions": versions,
            "numbers": self.numbers,
            "results": [result.to_json() for result in self.results],
        }


def run(specimens: Iterable[Specimen], workbench: Workbench) -> Iterator[Result]:
    """Check each mutant and its twin on a shared workbench; a result comes as soon as it is known."""
    for specimen in specimens:
        mutant, twin = (
            workbench.verify(target, steps=specimen.steps, at=specimen.at)
            for target in (specimen.mutant, specimen.twin)
        )
        yield Result(specimen, mutant, twin)


def choose(names: Sequence[str]) -> tuple[Specimen, ...]:
    """The specimens of these names, where a name may also be that of a component; all of them for no name.

    Raises:
        UsageError: a name is not known.
    """
    if not names:
        return SPECIMENS
    known = collections.defaultdict[str, list[Specimen]](list)
    for specimen in SPECIMENS:
        known[specimen.name].append(specimen)
        known[specimen.component].append(specimen)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or sorted({each.component for each in SPECIMENS})
            raise UsageError(f"no specimen and no component of the zoo is called {name!r}; try: {', '.join(close)}")
    chosen = {specimen.name for name in names for specimen in known[name]}
    return tuple(specimen for specimen in SPECIMENS if specimen.name in chosen)


def line(result: Result) -> str:
    """The result in one line, for a log."""
    found = "detected" if result.detected else "MISSED"
    twin = "twin left alone" if result.twin_left_alone else f"TWIN {result.twin.verdict.upper()}"
    return f"{result.specimen.name}: {found}, {_blame(result) or 'nothing blamed'}, {twin}"


def table(results: Iterable[Result]) -> Table:
    """A row for each specimen, for rich."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, padding=(0, 1))
    for title in ("specimen", "what is lost", "detected", "blamed first", "twin", "source"):
        found.add_column(title, header_style="dim", overflow="fold")
    for result in results:
        specimen = result.specimen
        right = "green" if result.named else "yellow" if result.named_acceptably else "red"
        found.add_row(
            specimen.name,
            specimen.component,
            "[green]yes[/]" if result.detected else "[red]no[/]",
            f"[{right}]{_blame(result)}[/]",
            "[green]equivalent[/]" if result.twin_left_alone else f"[red]{result.twin.verdict}[/]",
            specimen.source,
        )
    return found


def remarks(results: Iterable[Result]) -> Iterator[str]:
    """For each result that is not as it should be, what was found instead and how to look into it."""
    for result in results:
        specimen = result.specimen
        points = ",".join(str(point) for point in specimen.at)
        for wrong, target, verdict, findings in (
            (not (result.detected and result.named), specimen.mutant, result.mutant, result.blamed),
            (not result.twin_left_alone, specimen.twin, result.twin, _all_findings(result.twin)),
        ):
            if wrong:
                what = "; ".join(dict.fromkeys(found.message for found in findings)) or verdict.error or "no finding"
                yield (
                    f"{specimen.name}: {specimen.summary}\n"
                    f"  {verdict.verdict}: {what}\n"
                    f"  resumecheck verify {target} --steps {specimen.steps} --at {points}"
                )


def _all_findings(verdict: Verdict) -> tuple[Finding, ...]:
    return (*verdict.findings, *(found for point in verdict.resume_points for found in point.findings))


def _blame(result: Result) -> str:
    """The components that come first, and whether confirmed: once where all resume points agree."""
    return " / ".join(dict.fromkeys(f"{found.component} ({found.status})" for found in result.blamed))


def _facts(found: Finding) -> dict[str, str]:
    return {"code": found.code, "component": found.component, "status": found.status, "message": found.message}
