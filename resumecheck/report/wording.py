"""The words of a verdict, which terminal, page and Markdown share: what was done, what differs, and how far."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from resumecheck.state.components import COMPONENTS

if TYPE_CHECKING:
    from resumecheck.crash.verdict import CrashVerdict
    from resumecheck.verdict import Divergence, Finding, ResumePoint, StepPair, Verdict

LONGEST_SAMPLES = 32
LISTED_POINTS = 12

MEANING = {
    "equivalent": "a resumed run is the same run",
    "diverged": "a resumed run is not the same run",
    "nondeterministic": "the uninterrupted run does not repeat itself, so resume cannot be judged",
    "error": "the target failed, so resume cannot be judged",
}

#: Field of a `StepPair` -> its heading.
STEP_FIELDS = {"loss": "loss", "learning_rate": "learning rate", "grad_norm": "gradient norm", "samples": "samples"}


def target_name(verdict: Verdict | CrashVerdict) -> str:
    """The name of the target, with the path of its file as it is from here."""
    file, separator, factory = verdict.target.rpartition(":")
    if not os.path.isabs(file) or not os.path.exists(file):
        return verdict.target
    return f"{min(os.path.relpath(file), file, key=len)}{separator}{factory}"


def experiment(verdict: Verdict) -> str:
    """What was done, in a line: length, tolerance, work, versions."""
    parts = [f"{verdict.steps} steps", f"tolerance {verdict.tolerance}"]
    if verdict.resume_points:
        parts.append(f"resumed from {numbers(verdict.resume_points)}")
    parts.append(f"{verdict.steps_executed} steps executed")
    parts += [f"{name} {verdict.versions[name]}" for name in ("torch", "transformers") if name in verdict.versions]
    return "; ".join(parts)


def failed_points(verdict: Verdict) -> list[ResumePoint]:
    """The resume points whose run is not the same run."""
    return [point for point in verdict.resume_points if point.verdict != "equivalent"]


def kinds_of_failure(failed: Sequence[ResumePoint]) -> list[list[ResumePoint]]:
    """The failed points, those that failed in the same way together."""
    kinds: dict[tuple[str, ...], list[ResumePoint]] = {}
    for point in failed:
        divergence = point.first_divergence
        causes = [f"{finding.code} {finding.component}" for finding in point.findings]
        kind = (divergence.rung, divergence.component, *causes) if divergence else tuple(causes)
        kinds.setdefault(kind, []).append(point)
    return list(kinds.values())


def latent_findings(verdict: Verdict) -> list[tuple[Finding, list[ResumePoint]]]:
    """State that came back different and changed no step, once for each component and message."""
    found: dict[tuple[str, str, str], tuple[Finding, list[ResumePoint]]] = {}
    for point in verdict.resume_points:
        for finding in point.latent:
            found.setdefault((finding.code, finding.component, finding.message), (finding, []))[1].append(point)
    return list(found.values())


def known_fields(window: Sequence[StepPair]) -> list[str]:
    """The fields of `STEP_FIELDS` that a window has."""
    sides = [side or {} for pair in window for side in (pair.expected, pair.got)]
    return [field for field in STEP_FIELDS if any(field in side for side in sides)]


def first_difference(point: ResumePoint) -> str:
    """Where a resumed run first differs, in a sentence without an end."""
    divergence = point.first_divergence
    if divergence is None:
        return f"{point.findings[0].component}: {point.findings[0].message}" if point.findings else point.verdict
    return f"the first difference is at step {divergence.step}, in {divergence.component}"


def what_differs(divergence: Divergence) -> str:
    """The quantity that differs, and what its component is."""
    meaning = COMPONENTS.get(divergence.component)
    what = divergence.quantity if not divergence.name else f"{divergence.quantity} of {divergence.name}"
    return f"{what} ({divergence.component}{f': {meaning}' if meaning else ''})"


def distance(divergence: Divergence) -> str:
    """How far the two values are apart; empty where it was not measured."""
    parts = []
    if divergence.max_abs is not None:
        parts.append(f"max abs {number(divergence.max_abs, 4)}")
    if divergence.max_ulp is not None:
        parts.append(f"{divergence.max_ulp:,} ulp")
    return ", ".join(parts)


def cell(pair: StepPair, field: str) -> str:
    """A field of a step, uninterrupted -> resumed where the two differ."""
    expected = (pair.expected or {}).get(field)
    if pair.got is None:
        return text_of(expected)
    got = pair.got.get(field)
    if pair.expected is None:
        return f"(not run) -> {text_of(got)}"
    return text_of(expected) if expected == got or expected is got else " -> ".join(as_pair(expected, got))


def as_pair(expected: Any, got: Any) -> tuple[str, str]:
    """Two values with as many digits as it takes to see that they differ."""
    if isinstance(expected, float) and isinstance(got, float):
        for digits in (6, 9, 17):
            texts = number(expected, digits), number(got, digits)
            if texts[0] != texts[1]:
                return texts
    return text_of(expected), text_of(got)


def text_of(value: Any) -> str:
    """A value as a short text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value, 6)
    if isinstance(value, list | tuple):
        return shortened(" ".join(text_of(item) for item in value), LONGEST_SAMPLES)
    return str(value)


def number(value: float, digits: int) -> str:
    """A number with so many significant digits."""
    return f"{value:.{digits}g}"


def shortened(text: str, length: int) -> str:
    """The text in one line, cut off where it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}..."


def numbers(points: Iterable[ResumePoint]) -> str:
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


def command_to_repeat(verdict: Verdict, failed: Sequence[ResumePoint]) -> str | None:
    """The command that repeats the check at its first failed point with every option that it was made with.

    None where the target is an object that has no name on a command line.
    """
    from resumecheck.runs.command import Command

    settings = verdict.settings
    if not settings.command and not re.fullmatch(r"[^<>]+:[A-Za-z_][\w.]*", verdict.target):
        return None
    words = ["resumecheck", "verify"] if settings.command else ["resumecheck", "verify", target_name(verdict)]
    if verdict.steps and not settings.command:
        words += ["--steps", str(verdict.steps)]
    points = failed or verdict.resume_points
    if points:
        words += ["--at", ",".join(str(step) for step in _points_to_repeat(verdict, points[0]))]
    if settings.horizon != "end":
        words += ["--horizon", settings.horizon]
    if verdict.tolerance != "bitwise":
        words += ["--tolerance", verdict.tolerance]
    if settings.twice or (points and points[0].resumes > 1):
        words += ["--twice"]
    if settings.interrupt != "stop":
        words += ["--interrupt", settings.interrupt]
    for name, value in sorted(settings.on_resume.items()):
        words += ["--on-resume", f"{name}={value}"]
    if settings.command:
        words += ["--resume-option", settings.resume_option]
        if settings.checkpoint != Command.checkpoint:
            words += ["--checkpoint", settings.checkpoint]
        words += ["--", *settings.command]
    return shlex.join(words).replace("'{out}'", "{out}")


def _points_to_repeat(verdict: Verdict, point: ResumePoint) -> list[int]:
    """A point that was compared up to the next one only needs that one to be compared likewise."""
    following = [other.step for other in verdict.resume_points if other.step > point.step]
    return [point.step, *following[:1]] if point.horizon == "next" else [point.step]
