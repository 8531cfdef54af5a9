"""The checks of a pytest process: one `Workbench`, and checks that several items share, an item for a resume point."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resumecheck.errors import ResumecheckError
from resumecheck.plugin import settings

if TYPE_CHECKING:
    from resumecheck.check import Workbench
    from resumecheck.evidence import Evidence
    from resumecheck.verdict import ResumePoint, Verdict

_CHECKS = pytest.StashKey["Checks"]()


class Checks:
    """The workbench of a pytest process, and what it has found.

    Args:
        with_evidence: whether a page will show what the runs recorded.
        cache: a directory of reference runs of other sessions.
    """

    def __init__(self, *, with_evidence: bool, cache: Path | None) -> None:
        from resumecheck.check import Workbench

        self.workbench: Workbench = Workbench()
        if cache is not None:
            from resumecheck.reference_cache import ReferenceCache

            self.workbench.cache = ReferenceCache(cache)
        self._with_evidence = with_evidence
        self._shared: dict[Any, tuple[Verdict, Evidence | None] | ResumecheckError] = {}

    def make(self, target: Any, options: dict[str, Any]) -> tuple[Verdict, Evidence | None]:
        """A check of its own."""
        verdict = self.workbench.verify(target, **options)
        return verdict, self.workbench.evidence() if self._with_evidence else None

    def share(self, target: Any, options: dict[str, Any]) -> tuple[Verdict, Evidence | None]:
        """A check that is made once for all who ask with the same target and options, whether it succeeds or not."""
        from resumecheck.runs.target import find_target

        found = find_target(target)
        key = (found.name, found.identity, repr(sorted(options.items())))
        if key not in self._shared:
            try:
                self._shared[key] = self.make(found, options)
            except ResumecheckError as error:
                self._shared[key] = error
        made = self._shared[key]
        if isinstance(made, ResumecheckError):
            raise made
        return made


def checks(config: pytest.Config) -> Checks:
    """The checks of this pytest process; skips the test that asks for them where nothing is to be trained."""
    skip_without_the_option(config)
    if _CHECKS not in config.stash:
        config.stash[_CHECKS] = Checks(
            with_evidence=settings.path_option(config, "resumecheck_html") is not None,
            cache=settings.path_option(config, "resumecheck_cache"),
        )
    return config.stash[_CHECKS]


def close(config: pytest.Config) -> None:
    """End the worker processes."""
    made = config.stash.get(_CHECKS, None)
    if made is not None:
        del config.stash[_CHECKS]
        made.workbench.close()


def skip_without_the_option(config: pytest.Config) -> None:
    """For a fixture that is requested while the test runs, which collection cannot see."""
    if not settings.enabled(config):
        pytest.skip(settings.SKIPPED)


def narrowed(whole: Verdict, point: int) -> Verdict:
    """What a check says of one of its resume points, the second resume that belongs to it included."""
    firsts = [found for found in whole.resume_points if found.resumes == 1]
    again = [found.step for found in firsts if found.verdict == "equivalent" and whole.steps - found.step > 1]
    seconds = [found for found in whole.resume_points if found.resumes > 1]
    points: tuple[ResumePoint, ...] = (
        *(found for found in firsts if found.step == point),
        *(second for first, second in zip(again, seconds, strict=False) if first == point),
    )
    verdict = dataclasses.replace(whole, resume_points=points)
    if whole.verdict == "diverged" and all(found.verdict == "equivalent" for found in points):
        verdict = dataclasses.replace(verdict, verdict="equivalent")
    return verdict


def record(item: pytest.Item, verdict: Verdict) -> None:
    """The verdict as properties of the test in a JUnit report."""
    from resumecheck.report import junit

    item.user_properties.extend(junit.properties(verdict))
