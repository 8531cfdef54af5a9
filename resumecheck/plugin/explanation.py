"""What a failing test shows: the explanation in place of a traceback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resumecheck.errors import ResumecheckError, ResumeDivergence, TargetError

if TYPE_CHECKING:
    from resumecheck.verdict import Verdict


def failure(verdict: Verdict, reproduce: str | None) -> ResumecheckError:
    """The verdict as the error that a test fails with."""
    from resumecheck.report import terminal

    text = terminal.explanation(verdict, reproduce)
    if verdict.verdict == "diverged":
        return ResumeDivergence(text, verdict)
    return TargetError(text) if verdict.verdict == "error" else ResumecheckError(text)


def in_place_of_traceback(excinfo: pytest.ExceptionInfo[BaseException], item: pytest.Item, when: str) -> Any:
    """The text of the error, then the line of the test that raised it; one line of it goes to the summary."""
    from _pytest._code.code import ExceptionChainRepr, ReprEntry, ReprFileLocation, ReprTraceback

    own = [entry for entry in excinfo.traceback if Path(entry.path) == item.path]
    place = ReprFileLocation(os.path.relpath(item.path), own[-1].lineno + 1, excinfo.typename) if own else None
    crash = ReprFileLocation(str(item.path), own[-1].lineno + 1 if own else 0, _in_one_line(excinfo.value))
    # With --tb=line pytest prints the crash line itself, but only of what failed in the call.
    if when == "call" and item.config.getoption("tbstyle", "auto") == "line":
        entry = ReprEntry([], None, None, None, "value")
    else:
        entry = ReprEntry(str(excinfo.value).splitlines(), None, None, place, "value")
    return ExceptionChainRepr([(ReprTraceback([entry], None, "value"), crash, None)])


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, ResumeDivergence) and error.verdict is not None:
        from resumecheck.report import terminal

        return terminal.headline(error.verdict)
    return str(error).partition("\n")[0]
