"""What a check failed with, and how the check was made: the two things that a reduction keeps and makes smaller."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from resumecheck.errors import UsageError
from resumecheck.verdict import Finding, ResumePoint, Verdict

#: What `verify --keep DIR` leaves beside the recorded runs.
KEPT_VERDICT = "verdict.json"


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a check failed: two checks with the same failure have the same root cause.

    Attributes:
        verdict: `diverged` or `nondeterministic`.
        code: of the first finding.
        component: that it blames.
    """

    verdict: str
    code: str
    component: str

    @property
    def words(self) -> str:
        """For a message."""
        return f"{self.verdict}, {self.code} {self.component}"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One check of a target.

    Attributes:
        steps: the step after which runs stop.
        at: the one resume point.
        tolerance, interrupt, on_resume, twice: as in `check.Workbench.verify`.
        options: keyword arguments of the factory -> the value given in place of the default.
        arguments: fields of `TrainingArguments` -> the value that they have in place of the target's.
    """

    steps: int
    at: int
    tolerance: str = "bitwise"
    interrupt: str = "stop"
    on_resume: tuple[tuple[str, str], ...] = ()
    twice: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `resumecheck.verify`, those that are not its defaults."""
        given: dict[str, Any] = {"steps": self.steps, "at": [self.at]}
        if self.tolerance != "bitwise":
            given["tolerance"] = self.tolerance
        if self.interrupt != "stop":
            given["interrupt"] = self.interrupt
        if self.on_resume:
            given["on_resume"] = dict(self.on_resume)
        if self.twice:
            given["twice"] = True
        return given

    @property
    def words(self) -> str:
        """For progress."""
        return f"{self.steps} steps, resumed from {self.at}"


def read_report(path: Path) -> Verdict:
    """The verdict that `verify --json` wrote to a file, or `verify --keep` into a directory.

    Raises:
        UsageError: it is not there, or is something else.
    """
    file = path / KEPT_VERDICT if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if path.is_dir():
            raise UsageError(
                f"{path} has no {KEPT_VERDICT}: it is no directory that `verify --keep` left, or that check was cut "
                "short.\nGive the file of `verify --json`."
            ) from error
        raise UsageError(
            f"the report {path} does not exist; make one with: resumecheck verify ... --json FILE"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is not the report of a check: {_reason(error)}\n{_EXPECTED}") from error
    if not isinstance(data, dict) or "verdict" not in data or "resume_points" not in data:
        raise UsageError(f"{file} is not the report of a check: it has no verdict\n{_EXPECTED}")
    try:
        return Verdict.from_json(data)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UsageError(f"{file} is not a report that can be read here: {error}\n{_EXPECTED}") from error


_EXPECTED = "Expected is what `resumecheck verify ... --json FILE` writes."


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is not JSON"


def failed_point(verdict: Verdict) -> ResumePoint | None:
    """The first resume point whose run is not the same run."""
    return next((point for point in verdict.resume_points if point.verdict != "equivalent"), None)


def root_finding(verdict: Verdict) -> Finding | None:
    """The finding that is to blame first."""
    point = failed_point(verdict)
    findings = point.findings if point is not None else verdict.findings
    return findings[0] if findings else None


def failure_of(verdict: Verdict) -> Failure | None:
    """What a check failed with; None where it did not fail, or the target itself did."""
    found = root_finding(verdict)
    if verdict.verdict not in ("diverged", "nondeterministic") or found is None:
        return None
    return Failure(verdict.verdict, found.code, found.component)


def recipe_of(verdict: Verdict) -> Recipe:
    """The check of a report, at the first resume point that failed."""
    point = failed_point(verdict)
    settings = verdict.settings
    return Recipe(
        steps=verdict.steps,
        at=point.step if point is not None else max(1, verdict.steps // 2),
        tolerance=verdict.tolerance,
        interrupt=settings.interrupt,
        on_resume=tuple(sorted(settings.on_resume.items())),
        twice=settings.twice or (point is not None and point.resumes > 1),
    )


def first_step(verdict: Verdict) -> int | None:
    """The step at which the runs part, None where the report does not say."""
    point = failed_point(verdict)
    return point.first_divergence.step if point is not None and point.first_divergence is not None else None
