"""The verdict as JUnit properties: short texts that a CI system shows and filters by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resumecheck.verdict import Verdict


def properties(verdict: Verdict) -> list[tuple[str, str]]:
    """The properties of one check, in order: what was judged, the verdict, and the first resume point that failed."""
    found = [
        ("resumecheck.target", verdict.target),
        ("resumecheck.verdict", verdict.verdict),
        ("resumecheck.tolerance", verdict.tolerance),
        ("resumecheck.steps", str(verdict.steps)),
        ("resumecheck.resume_points", ",".join(str(point.step) for point in verdict.resume_points)),
    ]
    failed = [point for point in verdict.resume_points if point.verdict != "equivalent"]
    divergence = failed[0].first_divergence if failed else None
    if divergence is not None:
        found += [
            ("resumecheck.first_divergence.resume_point", str(failed[0].step)),
            ("resumecheck.first_divergence.step", str(divergence.step)),
            ("resumecheck.first_divergence.component", divergence.component),
        ]
    findings = (*verdict.findings, *(failed[0].findings if failed else ()))
    if findings:
        listed = "; ".join(f"{finding.code} {finding.component} {finding.status}" for finding in findings)
        found.append(("resumecheck.findings", listed))
    return found
