"""A check to report: what it found, what its runs recorded, and who asked for it."""

from __future__ import annotations

import dataclasses
from typing import Any

from resumecheck.evidence import Evidence
from resumecheck.verdict import Verdict


@dataclasses.dataclass(frozen=True)
class Checked:
    """A check to report.

    Attributes:
        verdict: what it found.
        evidence: what its runs recorded, None where the target failed or nobody asked for it.
        test: the test that asked for it, "" on the command line.
        place: the file and the line of that test, None where it is to be looked for in the target.
        reproduce: the command that repeats it; by default the command line, where the target has a name.
        passed: whether the test passed, as one does that expects a divergence.
    """

    verdict: Verdict
    evidence: Evidence | None = None
    test: str = ""
    place: tuple[str, int] | None = None
    reproduce: str | None = None
    passed: bool = False

    def to_plain(self) -> dict[str, Any]:
        """As plain types, to cross a process border."""
        return {
            "verdict": self.verdict.to_json(),
            "evidence": self.evidence.to_plain() if self.evidence is not None else None,
            "test": self.test,
            "place": list(self.place) if self.place is not None else None,
            "reproduce": self.reproduce,
            "passed": self.passed,
        }

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Checked:
        """What `to_plain` made."""
        evidence, place = data["evidence"], data["place"]
        return cls(
            verdict=Verdict.from_json(data["verdict"]),
            evidence=Evidence.from_plain(evidence) if evidence is not None else None,
            test=data["test"],
            place=(place[0], place[1]) if place is not None else None,
            reproduce=data["reproduce"],
            passed=data["passed"],
        )
