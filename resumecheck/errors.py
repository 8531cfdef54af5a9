"""The errors that users see. Each message names the thing, what was found, what was expected and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resumecheck.verdict import Verdict


class ResumecheckError(Exception):
    """Anything that resumecheck reports by itself."""


class UsageError(ResumecheckError):
    """Wrong input: a target, option or file that cannot be used. The command line exits with 2."""


class TargetError(ResumecheckError):
    """The target itself failed while it was built or trained uninterrupted. The command line exits with 4."""


class ResumeDivergence(ResumecheckError, AssertionError):  # noqa: N818 (the name of design and documentation)
    """A resumed run is not the same run. The text is the explanation; `verdict` holds the evidence."""

    def __init__(self, explanation: str, verdict: Verdict | None = None) -> None:
        super().__init__(explanation)
        self.verdict = verdict
