"""A check as one HTML page that needs no network and no script: verdict, causes, pictures, state, environment.

`page` is the text of it. Pictures come from `timeline.py` and `curves.py`, the rest from the template `page.html.j2`,
which escapes whatever it is given. jinja2 is in the extra `report`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from resumecheck.errors import UsageError
from resumecheck.evidence import QUANTITIES, Evidence, RecordedRun
from resumecheck.report import curves, timeline, wording
from resumecheck.report.checked import Checked
from resumecheck.report.terminal import headline
from resumecheck.report.whole_file import check_writable, write_whole
from resumecheck.state.components import COMPONENTS, RUNGS
from resumecheck.verdict import ResumePoint, StepPair, Verdict

#: So many runs are laid over the reference in a picture of curves; the state table has a part for so many.
MOST_CURVES, MOST_STATES = 3, 6

#: So many rows has a table of the numbers by step.
MOST_ROWS = 250

LONGEST_VALUE = 160


def require(path: Path, option: str) -> None:
    """Refuse, before any training is done for it, what `write` could not do.

    Raises:
        UsageError: jinja2 is not installed, or the file could not be written.
    """
    require_jinja2(option)
    check_writable(path, option)


def require_jinja2(option: str) -> None:
    """Refuse to make a page without jinja2.

    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise UsageError(
            f"{option} needs the package 'jinja2', which is not installed: pip install 'resumecheck[report]'"
        )


def write(checks: Sequence[Checked], path: Path, option: str) -> None:
    """Write the page of some checks, as a whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    write_whole(page(checks), path, option)


def write_index(files: Mapping[str, Checked], path: Path, option: str) -> None:
    """Write a page that links to the pages of some checks, by name of the file beside it.

    Raises:
        UsageError: the file cannot be written.
    """
    links = [_link(name, checked) for name, checked in files.items()]
    write_whole(_render(checks=[], links=links, title=_count(len(links))), path, option)


def page(checks: Sequence[Checked]) -> str:
    """The HTML of some checks, one below the other."""
    names = [f"c{index + 1}" for index in range(len(checks))]
    links = [_link(f"#{name}", checked) for name, checked in zip(names, checks, strict=True)]
    title = f"{checks[0].verdict.verdict.capitalize()}: {links[0]['name']}" if len(checks) == 1 else _count(len(checks))
    shown = [_check(name, checked) for name, checked in zip(names, checks, strict=True)]
    return _render(checks=shown, links=links if len(checks) > 1 else [], title=title)


def _count(number: int) -> str:
    return f"{number} check{'' if number == 1 else 's'}"


def _link(address: str, checked: Checked) -> dict[str, str]:
    return {
        "address": address,
        "verdict": checked.verdict.verdict,
        "name": checked.test or wording.target_name(checked.verdict),
        "headline": headline(checked.verdict),
    }


def _render(**shown: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    here = files("resumecheck.report")
    template = environment.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(style=_markup((here / "page.css").read_text(encoding="utf-8")), **shown)


def _check(prefix: str, checked: Checked) -> dict[str, Any]:
    """What the template shows of a check."""
    verdict, evidence = checked.verdict, checked.evidence
    failed = wording.failed_points(verdict)
    return {
        "id": prefix,
        "verdict": verdict,
        "test": checked.test,
        "passed": checked.passed,
        "target": wording.target_name(verdict),
        "meaning": wording.MEANING[verdict.verdict],
        "headline": headline(verdict),
        "facts": _facts(verdict),
        "kinds": [_kind(points) for points in wording.kinds_of_failure(failed)]
        if verdict.verdict == "diverged"
        else [],
        "equivalent": wording.numbers(point for point in verdict.resume_points if point.verdict == "equivalent"),
        "points": [_row(point) for point in verdict.resume_points[:MOST_ROWS]],
        "more_points": wording.numbers(verdict.resume_points[MOST_ROWS:]),
        "timeline": _markup(timeline.timeline(verdict, evidence)) if evidence else None,
        "undrawn": max(0, len(verdict.resume_points) - timeline.MOST_RUNS),
        "curves": _curves(verdict, evidence) if evidence else [],
        "states": _states(verdict, evidence) if evidence else [],
        "latent": [(finding, wording.numbers(points)) for finding, points in wording.latent_findings(verdict)],
        "environment": evidence.environment if evidence else verdict.versions,
        "arguments": evidence.arguments if evidence else {},
        "reproduce": checked.reproduce or wording.command_to_repeat(verdict, failed),
    }


def _markup(text: str | None) -> Any:
    """What goes into the page as it is: the style, and an SVG, which a tree wrote that escapes every text."""
    from markupsafe import Markup

    return None if text is None else Markup(text)


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    again = wording.numbers(point for point in verdict.resume_points if point.resumes > 1)
    once = wording.numbers(point for point in verdict.resume_points if point.resumes == 1)
    facts = [("Steps", f"{verdict.steps:,}"), ("Resumed from", once or "nowhere")]
    facts += [("and again from", again)] if again else []
    facts += [("Tolerance", verdict.tolerance), ("Steps executed", f"{verdict.steps_executed:,}")]
    repeats = "bit for bit" if verdict.reference_repeats else "no"
    return [*facts, ("Repeats itself", repeats)] if verdict.verdict != "error" else facts


def _kind(points: Sequence[ResumePoint]) -> dict[str, Any]:
    """A kind of failure: the first point that failed in that way in full, and the others by number."""
    point = points[0]
    divergence = point.first_divergence
    shown: dict[str, Any] = {
        "point": point,
        "again": " a second time" if point.resumes > 1 else "",
        "first": wording.first_difference(point),
        "likewise": wording.numbers(points[1:]),
        "headings": [wording.STEP_FIELDS[field] for field in wording.known_fields(point.window)],
        "window": [_step(pair, wording.known_fields(point.window)) for pair in point.window],
    }
    if divergence is not None:
        expected, got = wording.as_pair(divergence.expected, divergence.got)
        shown["where"] = divergence.rung
        shown["rung"] = RUNGS.get(divergence.rung, "")
        shown["what"] = wording.what_differs(divergence)
        shown["expected"] = wording.shortened(expected, LONGEST_VALUE)
        shown["got"] = wording.shortened(got, LONGEST_VALUE)
        shown["distance"] = wording.distance(divergence)
    return shown


def _step(pair: StepPair, fields: Sequence[str]) -> dict[str, Any]:
    """A step around the difference; of a cell its text, and whether the runs differ there."""
    cells = [wording.cell(pair, field) for field in fields]
    differs = not pair.equal and pair.got is not None
    return {
        "step": pair.step,
        "differs": differs,
        "cells": [(text.replace(" -> ", " → "), " -> " in text) for text in cells],
    }


def _row(point: ResumePoint) -> dict[str, Any]:
    divergence = point.first_divergence
    return {
        "point": point,
        "to": "the end" if point.horizon == "end" else "the next point",
        "first": f"step {divergence.step}, {divergence.component}" if divergence else "",
        "cause": f"{point.findings[0].code}, {point.findings[0].status}" if point.findings else "",
    }


def _drawn(verdict: Verdict, evidence: Evidence) -> list[RecordedRun]:
    """The runs to lay over the reference: the source run where it differs, then resumed runs of each kind."""
    unequal = evidence.source.parts_from(evidence.reference) is not None
    chosen = timeline.shown_points(verdict, MOST_CURVES)
    found = [evidence.of(point.step, point.resumes) for point in chosen]
    resumed = [each.run for each in found if each is not None and each.run.loss]
    return [*([evidence.source] if unequal or not resumed else []), *resumed][:MOST_CURVES]


def _curves(verdict: Verdict, evidence: Evidence) -> list[dict[str, Any]]:
    runs = _drawn(verdict, evidence)
    shown: list[dict[str, Any]] = []
    for quantity, title in QUANTITIES.items():
        svg = curves.curves(quantity, evidence.reference, runs)
        if svg is None:
            continue
        apart = [curves.differences(quantity, evidence.reference, run) for run in runs]
        shown.append(
            {
                "id": quantity.replace("_", "-"),
                "title": title,
                "svg": _markup(svg),
                "runs": [(run.name, curves.summary(quantity, evidence.reference, run)) for run in runs],
                "rows": _numbers(quantity, evidence.reference, apart),
            }
        )
    return shown


def _numbers(quantity: str, reference: RecordedRun, apart: Sequence[Sequence[curves.Apart]]) -> list[list[str]]:
    """Rows of step, reference, and the value and the distance of each run; of a long run those from a difference on."""
    unequal = [each.step for run in apart for each in run if each.ulp]
    last = reference.last_step
    first = max(1, min(unequal, default=1) - 5) if last > MOST_ROWS else 1
    by_step = [{each.step: each for each in run} for run in apart]
    rows: list[list[str]] = []
    for step in range(first, min(last, first + MOST_ROWS - 1) + 1):
        cells = [str(step), wording.text_of(reference.at(quantity, step))]
        for run in by_step:
            each = run.get(step)
            if each is None:
                cells += ["", ""]
            else:
                cells += [wording.as_pair(each.expected, each.got)[1], curves.ulp_words(each.ulp)]
        rows.append(cells)
    return rows


def _brief(digest: str | None) -> str:
    """A digest with the beginning of its hash, a value cut off where it is long."""
    if digest is None:
        return "missing"
    return wording.shortened(re.sub(r"(#(?:\w+:)?[0-9a-f]{8})[0-9a-f]+$", r"\1…", digest), 60)


def _states(verdict: Verdict, evidence: Evidence) -> list[dict[str, Any]]:
    """The state table of each resume point that is shown, those that failed first."""
    points = timeline.shown_points(verdict, MOST_STATES)
    points.sort(key=lambda point: point.verdict == "equivalent")
    shown: list[dict[str, Any]] = []
    for point in points:
        found = evidence.of(point.step, point.resumes)
        if found is None or not found.state:
            continue
        rows = [
            {
                "state": state,
                "meaning": COMPONENTS[state.component],
                "expected": _brief(state.expected),
                "got": _brief(state.got),
            }
            for state in found.state
        ]
        lost = [state.component for state in found.state if state.lost]
        summary = f"not as saved: {', '.join(lost)}" if lost else "everything is back as it was saved"
        again = " a second time" if point.resumes > 1 else ""
        shown.append({"title": f"Resumed{again} from step {point.step}", "summary": summary, "rows": rows})
    return shown
