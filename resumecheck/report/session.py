"""The reports of a pytest run: HTML pages, and what GitHub shows. They are written once, when the run ends.

A check is attached to the report of its test as plain types, so it comes from the processes of pytest-xdist as from
this one.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from resumecheck.errors import ResumecheckError, UsageError
from resumecheck.evidence import Evidence
from resumecheck.report import github, page
from resumecheck.report.checked import Checked
from resumecheck.verdict import Verdict

OPTION = "--resumecheck-html"

#: Attribute of a test's report: name of the check -> the check as plain types.
CHECKED = "resumecheck_checked"

#: Attribute of a test's report: (file, line, message) of a failure that is no verdict.
FAILURE = "resumecheck_failure"

_KEPT = pytest.StashKey[dict[str, Checked]]()

_LONGEST_NAME = 120


class SessionReports:
    """Gathers the checks of a run. A plugin of the process that reports.

    Args:
        html: a file whose name ends in `.html` for one page with all checks, or a directory for a page each; None for
            no page.
    """

    def __init__(self, html: Path | None) -> None:
        self._html = html
        self._checks: dict[str, Checked] = {}
        self._failures: list[tuple[str, int, str]] = []
        self._written = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what is attached to the report of a test."""
        for name, data in getattr(report, CHECKED, {}).items():
            self._checks[name] = Checked.from_plain(data)
        failure: Any = getattr(report, FAILURE, None)
        if failure is not None:
            self._failures.append(tuple(failure))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Write the pages and the summary."""
        github.append_summary(list(self._checks.values()))
        if self._html is None or not self._checks:
            return
        try:
            self._written = _write(self._checks, self._html)
        except (ResumecheckError, OSError) as error:
            self._written = f"no report was written: {error}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the report, and annotate what failed."""
        if self._written:
            terminalreporter.write_line(f"resumecheck: {self._written}")
        lines = github.annotations(list(self._checks.values()))
        if github.annotates():
            lines += [github.annotation((file, line), "resumecheck", text) for file, line, text in self._failures]
        for line in lines[: github.MOST_ANNOTATIONS]:
            terminalreporter.write_line(line)


def require(html: Path) -> None:
    """Refuse, before any training is done for it, what could not be written.

    Raises:
        UsageError: jinja2 is not installed, or the file or the directory cannot be made.
    """
    page.require_jinja2(OPTION)
    if _is_file(html):
        page.require(html, OPTION)
        return
    try:
        html.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{OPTION} {html}: the directory cannot be made ({error.strerror or error}); give a directory, or a file "
            "whose name ends in .html"
        ) from error


def keep(
    item: pytest.Item, verdict: Verdict, evidence: Evidence | None, reproduce: str | None, target: str = ""
) -> None:
    """Keep a check until its test is reported.

    Args:
        item: the test.
        verdict: what was found.
        evidence: what was recorded, None where no page is to show it.
        reproduce: the command that repeats it, None for the command line of its target.
        target: the name of the check where no test asked for it.
    """
    kept = item.stash.setdefault(_KEPT, {})
    name = target or (item.nodeid if not kept else f"{item.nodeid} ({len(kept) + 1})")
    kept[name] = Checked(verdict, evidence, "" if target else name, None if target else _place(item), reproduce)


def attach(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Attach the checks that a test has made to its report, or else how it failed without a verdict."""
    kept = item.stash.get(_KEPT, {})
    item.stash[_KEPT] = {}
    error = call.excinfo.value if call.excinfo is not None else None
    failed = isinstance(error, ResumecheckError) and report.outcome == "failed"
    own = [entry for entry in call.excinfo.traceback if Path(entry.path) == item.path] if call.excinfo else []
    place = (str(item.path), own[-1].lineno + 1) if own else None
    for name, checked in kept.items():
        if checked.test:
            kept[name] = dataclasses.replace(checked, passed=report.outcome != "failed")
    if kept:
        last = list(kept)[-1]
        if failed and place is not None:
            kept[last] = dataclasses.replace(kept[last], place=place)
        setattr(report, CHECKED, {name: checked.to_plain() for name, checked in kept.items()})
    elif failed:
        setattr(report, FAILURE, (*(place or _place(item)), str(error)))


def _place(item: pytest.Item) -> tuple[str, int]:
    path, line, _name = item.reportinfo()
    return str(path), (line or 0) + 1


def _is_file(html: Path) -> bool:
    return html.suffix == ".html" and not html.is_dir()


def _write(checks: dict[str, Checked], html: Path) -> str:
    """Write one page, or a page for each check and an index; says where."""
    if _is_file(html):
        page.write(list(checks.values()), html, OPTION)
        return f"the report is {html}"
    files: dict[str, Checked] = {}
    for name, checked in checks.items():
        slug = re.sub(r"[^\w.=-]+", "-", name).strip("-.")[-_LONGEST_NAME:]
        taken = sum(re.sub(r"~\d+$", "", file) == slug for file in files)
        files[f"{slug}~{taken + 1}" if taken else slug] = checked
    for file, checked in files.items():
        page.write([checked], html / f"{file}.html", OPTION)
    page.write_index({f"{file}.html": checked for file, checked in files.items()}, html / "index.html", OPTION)
    return f"the reports are in {html}, see index.html"
