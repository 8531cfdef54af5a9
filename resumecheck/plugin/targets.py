"""Targets that no test file names: a collector for each, with an item for each of its resume points."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resumecheck.errors import ResumecheckError
from resumecheck.plugin import settings
from resumecheck.plugin.checks import checks, narrowed, record
from resumecheck.plugin.explanation import failure

if TYPE_CHECKING:
    from resumecheck.evidence import Evidence
    from resumecheck.verdict import Verdict


class TargetNode(pytest.Collector):
    """A target that was named as an option: one item for each of its resume points, which share one check."""

    _reported = False

    def collect(self) -> Iterator[pytest.Item]:
        """Ask the target for its resume points; without `--resumecheck` it is one item that is skipped."""
        if settings.enabled(self.config):
            options = settings.of_run(self.config)
            workbench = checks(self.config).workbench
            _steps, points = workbench.plan(self.name, steps=options.get("steps"), at=options.get("at"))
            names = [(f"{self.name}[at={point}]", point) for point in points]
        else:
            names = [(self.name, 0)]
        for name, point in names:
            item = TargetItem.from_parent(self, name=name, nodeid=f"resumecheck::{name}", point=point)
            item.add_marker("resumecheck")
            yield item

    def check(self) -> tuple[Verdict, Evidence | None]:
        """The check over the resume points that were selected, made when the first item asks for it."""
        points = [item.point for item in self.session.items if isinstance(item, TargetItem) and item.parent is self]
        return checks(self.config).share(self.name, {**settings.of_run(self.config), "at": sorted(points)})

    def report(self, item: pytest.Item) -> None:
        """Report the whole check by the first item that asks."""
        if self.config.stash[settings.REPORTS] and not self._reported:
            from resumecheck.report import session

            self._reported = True
            session.keep(item, *self.check(), None, target=self.nodeid)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        """A target that cannot be used is a message, not a traceback."""
        if isinstance(excinfo.value, ResumecheckError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class TargetItem(pytest.Item):
    """One resume point of a target."""

    def __init__(self, *, point: int, **node: Any) -> None:
        super().__init__(**node)
        self.point = point

    def runtest(self) -> None:
        """Report this resume point out of the target's verdict."""
        parent = self.parent
        assert isinstance(parent, TargetNode)
        whole, _evidence = parent.check()
        verdict = narrowed(whole, self.point)
        record(self, verdict)
        parent.report(self)
        if not verdict.equivalent:
            raise failure(verdict, None)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int, str]:
        """Where the target is, for the report: the file where it has one."""
        file = Path(self.name.rpartition(":")[0])
        return (file if file.suffix == ".py" else self.path), 0, f"target {self.name}"


def add_targets(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the items of the targets that command line or ini file name."""
    for target in _targets(config):
        node = TargetNode.from_parent(session, name=target, nodeid=f"resumecheck::{target}")
        items.extend(session.genitems(node))


def _targets(config: pytest.Config) -> list[str]:
    """The targets to collect: those of the command line, else those of the ini file, which are relative to it."""
    targets = config.getoption("resumecheck_target")
    if not targets:
        targets = [_from_root(config, target) for target in config.getini("resumecheck_targets")]
    return list(dict.fromkeys(targets))


def _from_root(config: pytest.Config, target: str) -> str:
    file, separator, name = target.rpartition(":")
    if not file.endswith(".py") or Path.cwd() == config.rootpath:
        return target
    return f"{os.path.relpath(config.rootpath / file)}{separator}{name}"
