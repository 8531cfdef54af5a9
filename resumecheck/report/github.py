"""Checks as GitHub shows them: annotations beside the code, and a summary of the job in Markdown.

A workflow command is a line on standard output; the summary is appended to the file that `GITHUB_STEP_SUMMARY` names.
Both are described in GitHub's documentation of workflow commands. Without these variables nothing is written.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from resumecheck.report import wording
from resumecheck.report.checked import Checked
from resumecheck.report.terminal import explanation, headline
from resumecheck.verdict import Finding, Verdict

#: GitHub shows ten annotations of a kind for each step of a job.
MOST_ANNOTATIONS = 10

#: GitHub takes one MiB of summary for each step; with more, none of it is shown.
LONGEST_SUMMARY = 900_000

#: So many resume points are rows of the summary.
MOST_ROWS = 50

_MARKS = {"equivalent": "✅", "diverged": "❌", "nondeterministic": "⚠️", "error": "❌"}


def annotates(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether standard output is read for workflow commands."""
    return environment.get("GITHUB_ACTIONS") == "true"


def reports(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is anything to do."""
    return annotates(environment) or bool(environment.get("GITHUB_STEP_SUMMARY"))


def annotations(checks: Sequence[Checked], environment: Mapping[str, str] = os.environ) -> list[str]:
    """The workflow commands of the checks that failed, as lines; empty outside of GitHub."""
    if not annotates(environment):
        return []
    root = Path(environment.get("GITHUB_WORKSPACE") or os.getcwd())
    failed = [checked for checked in checks if not checked.verdict.equivalent and not checked.passed]
    return [_annotation(checked, root) for checked in failed[:MOST_ANNOTATIONS]]


def append_summary(checks: Sequence[Checked], environment: Mapping[str, str] = os.environ) -> None:
    """Append the summary to the file that GitHub has named, if it has; a file that cannot be written is told."""
    path = environment.get("GITHUB_STEP_SUMMARY")
    if not path or not checks:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(summary(checks))
    except OSError as error:
        print(f"resumecheck: the summary {path} cannot be written ({error.strerror or error})", file=sys.stderr)


def annotation(place: tuple[str, int] | None, title: str, message: str, root: Path | None = None) -> str:
    """An error as a workflow command.

    Args:
        place: file and line, None where it belongs to none.
        title: one line.
        message: may have several lines.
        root: the repository, by default what GitHub says it is.
    """
    root = root or Path(os.environ.get("GITHUB_WORKSPACE") or os.getcwd())
    properties = {"title": title}
    if place is not None:
        properties = {"file": _from(root, place[0]), "line": str(max(1, place[1])), **properties}
    said = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::error {said}::{_data(message)}"


def _annotation(checked: Checked, root: Path) -> str:
    verdict = checked.verdict
    place = checked.place or _raised_at(verdict) or _factory(verdict)
    lines = [f"{wording.target_name(verdict)}: {wording.MEANING[verdict.verdict]}"]
    for finding in _findings(verdict)[:1]:
        lines += [f"{finding.code} {finding.component}, {finding.status}: {finding.message}", finding.advice]
    lines += [verdict.error] if verdict.error else []
    message = "\n".join(line for line in lines if line)
    return annotation(place, f"resumecheck: {headline(verdict)}", message, root)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _from(root: Path, file: str) -> str:
    """The file as it is from the root of the repository, where it lies in there."""
    path = Path(file).absolute()
    for base in (root.absolute(), root.resolve()):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()


def _raised_at(verdict: Verdict) -> tuple[str, int] | None:
    """Where the exception was raised that ended a run."""
    where = verdict.error or next(
        (
            point.first_divergence.name
            for point in verdict.resume_points
            if point.first_divergence is not None and point.first_divergence.component == "resume-failure"
        ),
        "",
    )
    match = re.search(r"(?:^|\n\s*at )(\S[^\n]*\.py):(\d+) in ", where)
    return (match[1], int(match[2])) if match else None


def _factory(verdict: Verdict) -> tuple[str, int] | None:
    """The file of the target, which is not imported for it, and the line of the factory."""
    place, _, factory = verdict.target.rpartition(":")
    candidates = [Path(place)] if place.endswith(".py") else []
    if not candidates and all(part.isidentifier() for part in place.split(".")):
        parts = Path(*place.split("."))
        folders = [Path(entry or ".") for entry in ("", *sys.path)]
        candidates = [folder / end for folder in folders for end in (parts.with_suffix(".py"), parts / "__init__.py")]
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        return None
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return str(file), 1
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    lines = [node.lineno for node in tree.body if isinstance(node, kinds) and node.name == factory.split(".")[0]]
    return str(file), lines[-1] if lines else 1


def _findings(verdict: Verdict) -> list[Finding]:
    failed = wording.failed_points(verdict)
    return [*verdict.findings, *(failed[0].findings if failed else ())]


def summary(checks: Sequence[Checked]) -> str:
    """The Markdown of some checks: a line for each, and after it what failed in full, as far as there is room."""
    lines = ["## resumecheck: is a resumed run the same run?", ""]
    lines += ["| | check | resumed from | verdict |", "| --- | --- | --- | --- |"]
    for checked in checks:
        verdict = checked.verdict
        cells = [_MARKS[verdict.verdict], _code(_name(checked)), wording.numbers(verdict.resume_points)]
        expected = " (its test passed)" if checked.passed and not verdict.equivalent else ""
        lines.append(f"| {' | '.join([*cells, _text(headline(verdict)) + expected])} |")
    text = "\n".join(lines) + "\n"
    for checked in checks:
        part = "\n".join(_failed(checked)) + "\n" if not checked.verdict.equivalent else ""
        if len((text + part).encode()) > LONGEST_SUMMARY:
            return f"{text}\nMore failed than there is room for here: see the log.\n\n"
        text += part
    return f"{text}\n"


def _name(checked: Checked) -> str:
    return checked.test or wording.target_name(checked.verdict)


def _failed(checked: Checked) -> Iterator[str]:
    verdict = checked.verdict
    yield f"\n### {_code(_name(checked))} {_text(wording.MEANING[verdict.verdict])}\n"
    if verdict.resume_points:
        yield "| resumed from | to | steps compared | verdict | first difference | cause |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for point in verdict.resume_points[:MOST_ROWS]:
            divergence = point.first_divergence
            cells = [
                f"{point.step}{' (second resume)' if point.resumes > 1 else ''}",
                "the end" if point.horizon == "end" else "the next point",
                str(point.compared),
                point.verdict,
                f"step {divergence.step}, {divergence.component}" if divergence else "",
                f"{point.findings[0].code}, {point.findings[0].status}" if point.findings else "",
            ]
            yield f"| {' | '.join(map(_text, cells))} |"
        more = verdict.resume_points[MOST_ROWS:]
        if more:
            yield f"\nNot listed: {wording.numbers(more)}"
        yield ""
    for finding in _findings(verdict):
        yield f"**{finding.code} {_text(finding.component)}**, {finding.status}: {_text(finding.message)}\n"
        if finding.advice:
            yield f"What to do: {_text(finding.advice)}\n"
    # As HTML: a fence would end at the first fence in what a target has said.
    yield "<details><summary>The whole report</summary>\n"
    yield f"<pre>{_quoted(explanation(verdict, checked.reproduce))}</pre>\n\n</details>\n"


def _text(text: str) -> str:
    """Text in which nothing is markup, in one line."""
    return _quoted(" ".join(text.split()))


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"


def _quoted(text: str) -> str:
    """Every character that HTML or Markdown gives a meaning as a reference; an empty line would end a block of HTML."""
    return re.sub(r"[&<>\"'\\`*_\[\]#!|~@:\n]", lambda match: f"&#{ord(match[0])};", text)
