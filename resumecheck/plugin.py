"""The pytest plugin: options, the marker, the fixtures, and items for targets that no test file names.

Everything that trains is imported when a test asks for it, so a pytest run without `--resumecheck` pays nothing. All
tests of a process share one `Workbench`, so a run that several tests ask for is made once.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resumecheck.errors import ResumecheckError, ResumeDivergence, TargetError, UsageError
from resumecheck.options import NAMES, SHARED, read_options

if TYPE_CHECKING:
    from resumecheck.check import Workbench
    from resumecheck.evidence import Evidence
    from resumecheck.trajectory import Trajectory
    from resumecheck.verdict import Verdict

SKIPPED = "resumecheck trains models: runs only with --resumecheck"
_HTML_HELP = "write reports as HTML: a page for each check into a directory, or all into one file that ends in .html"
FIXTURES = ("resumecheck", "reference_run", "resumed_run", "assert_resume_equivalent")

_SETTINGS = pytest.StashKey[dict[str, Any]]()
_WORKBENCH = pytest.StashKey["Workbench"]()
_HTML = pytest.StashKey["Path | None"]()
_REPORTS = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options and their ini twins."""
    group = parser.getgroup("resumecheck", "resumecheck: is a resumed training run still the same run?")
    group.addoption("--resumecheck", action="store_true", help="run the tests that train, interrupt and resume models")
    group.addoption(
        "--resumecheck-target",
        action="append",
        default=[],
        metavar="TARGET",
        help="collect one item for each resume point of TARGET (pkg.module:build or path/to/file.py:build); repeatable",
    )
    parser.addini(
        "resumecheck_targets", "targets to collect when --resumecheck-target is not given", type="linelist", default=[]
    )
    group.addoption("--resumecheck-html", metavar="DIR_OR_FILE", default=None, help=_HTML_HELP)
    parser.addini("resumecheck_html", _HTML_HELP, default=None)
    for option in SHARED:
        group.addoption(f"--resumecheck-{option.name}", metavar=option.metavar, default=None, help=option.help)
        parser.addini(f"resumecheck_{option.name}", option.help.replace("(default: ", "(else: "), default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and read the options, so that a wrong one ends the run before it starts."""
    names = ", ".join(f"{name}=" for name in NAMES)
    config.addinivalue_line("markers", f"resumecheck({names}): trains and resumes; runs only with --resumecheck")
    ini = {option.name: config.getini(f"resumecheck_{option.name}") or None for option in SHARED}
    given = {option.name: config.getoption(f"resumecheck_{option.name}") for option in SHARED}
    try:
        settings = read_options(ini, "ini option resumecheck_*")
        config.stash[_SETTINGS] = {**settings, **read_options(given, "option --resumecheck-*")}
        _configure_reports(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def _configure_reports(config: pytest.Config) -> None:
    """Prepare the reports of this run, where there will be checks and somebody asked for reports."""
    html = config.stash[_HTML] = _html(config)
    config.stash[_REPORTS] = False
    if not config.getoption("resumecheck"):
        return
    from resumecheck.report import github

    config.stash[_REPORTS] = html is not None or github.reports()
    if not config.stash[_REPORTS] or hasattr(config, "workerinput"):
        return  # A worker of pytest-xdist leaves the reports to its controller.
    from resumecheck.report import session

    if html is not None:
        session.require(html)
    config.pluginmanager.register(session.SessionReports(html), "resumecheck-reports")


def _html(config: pytest.Config) -> Path | None:
    """Where HTML goes: as on the command line, or as in the ini file, relative to that."""
    given, ini = config.getoption("resumecheck_html"), config.getini("resumecheck_html")
    if given:
        return (config.invocation_params.dir / given).absolute()
    return (config.rootpath / ini).absolute() if ini else None


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the worker processes."""
    workbench = config.stash.get(_WORKBENCH, None)
    if workbench is not None:
        del config.stash[_WORKBENCH]
        workbench.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the items of the targets, mark the tests that use the fixtures, and skip all of them without the option."""
    for target in _targets(config):
        node = TargetNode.from_parent(session, name=target, nodeid=f"resumecheck::{target}")
        items.extend(session.genitems(node))
    for item in items:
        if item.get_closest_marker("resumecheck") is None and _uses_the_fixtures(item):
            item.add_marker("resumecheck")
        if item.get_closest_marker("resumecheck") is not None and not config.getoption("resumecheck"):
            item.add_marker(pytest.mark.skip(reason=SKIPPED))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the explanation in place of a traceback; `--full-trace` shows the traceback."""
    report = yield
    if (
        call.excinfo is not None
        and isinstance(call.excinfo.value, ResumecheckError)
        and report.outcome == "failed"
        and not item.config.getoption("fulltrace", False)
    ):
        report.longrepr = _as_explanation(call.excinfo, item, call.when)
    if item.config.stash[_REPORTS]:
        from resumecheck.report import session

        session.attach(item, call, report)
    return report


@pytest.fixture
def resumecheck(request: pytest.FixtureRequest) -> Callable[..., Verdict]:
    """Check a factory: `resumecheck(build, steps=12, at=[4])` returns the verdict.

    Raises:
        ResumeDivergence: a resumed run is not the same run; the text is the explanation.
        TargetError: the target fails even when it is not interrupted.
        ResumecheckError: the uninterrupted run does not repeat itself.
        UsageError: the factory or an option cannot be used.
    """
    settings, workbench = _settings(request.node), _workbench(request.config)

    def check(build: Callable[..., Any] | str, **overrides: Any) -> Verdict:
        __tracebackhide__ = True
        verdict = workbench.verify(build, **{**settings, **read_options(overrides, "resumecheck(...)")})
        reproduce = f"pytest --resumecheck {shlex.quote(request.node.nodeid)}"
        _record(request.node, verdict)
        if request.config.stash[_REPORTS]:
            from resumecheck.report import session

            session.keep(request.node, verdict, _evidence(request.config), reproduce)
        if not verdict.equivalent:
            raise _failure(verdict, reproduce)
        return verdict

    return check


@pytest.fixture
def reference_run(request: pytest.FixtureRequest) -> Callable[..., Trajectory]:
    """The uninterrupted run: `reference_run(build, steps=12)` returns its trajectory."""
    settings, workbench = _settings(request.node), _workbench(request.config)

    def run(build: Callable[..., Any] | str, *, steps: int | None = None) -> Trajectory:
        __tracebackhide__ = True
        return workbench.reference_run(build, steps=steps or settings.get("steps"))

    return run


@pytest.fixture
def resumed_run(request: pytest.FixtureRequest) -> Callable[..., Trajectory]:
    """A resumed run: `resumed_run(build, steps=12, at=4)` returns its trajectory, from step 5 on."""
    settings, workbench = _settings(request.node), _workbench(request.config)

    def run(build: Callable[..., Any] | str, *, at: int, steps: int | None = None) -> Trajectory:
        __tracebackhide__ = True
        return workbench.resumed_run(build, at=at, steps=steps or settings.get("steps"))

    return run


@pytest.fixture
def assert_resume_equivalent(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compare two trajectories: `assert_resume_equivalent(reference, resumed, quantities=["weights", "loss"])`."""
    _skip_without_the_option(request.config)
    settings = _settings(request.node)

    def compare(
        reference: Trajectory,
        resumed: Trajectory,
        quantities: Sequence[str] | None = None,
        tolerance: str | None = None,
    ) -> None:
        __tracebackhide__ = True
        from resumecheck import check

        tolerance = tolerance or settings.get("tolerance", "bitwise")
        check.assert_resume_equivalent(reference, resumed, quantities, tolerance)

    return compare


class TargetNode(pytest.Collector):
    """A target that was named as an option: one item for each of its resume points, which share one check."""

    _checked: Verdict | ResumecheckError | None = None
    _evidence: Evidence | None = None
    _reported = False

    def collect(self) -> Iterator[pytest.Item]:
        """Ask the target for its resume points; without `--resumecheck` it is one item that is skipped."""
        if self.config.getoption("resumecheck"):
            settings = self.config.stash[_SETTINGS]
            at = settings.get("at")
            _steps, points = _workbench(self.config).plan(self.name, steps=settings.get("steps"), at=at)
            names = [(f"{self.name}[at={point}]", point) for point in points]
        else:
            names = [(self.name, 0)]
        for name, point in names:
            item = TargetItem.from_parent(self, name=name, nodeid=f"resumecheck::{name}", point=point)
            item.add_marker("resumecheck")
            if self.config.pluginmanager.hasplugin("xdist"):
                item.add_marker(pytest.mark.xdist_group(self.name))
            yield item

    def verdict(self) -> Verdict:
        """The verdict over the resume points that were selected, made when the first item asks for it."""
        if self._checked is None:
            points = [item.point for item in self.session.items if isinstance(item, TargetItem) and item.parent is self]
            settings: dict[str, Any] = {**self.config.stash[_SETTINGS], "at": points}
            try:
                self._checked = _workbench(self.config).verify(self.name, **settings)
                self._evidence = _evidence(self.config)
            except ResumecheckError as error:
                self._checked = error
        if isinstance(self._checked, ResumecheckError):
            raise self._checked
        return self._checked

    def report(self, item: pytest.Item) -> None:
        """Report the whole check by the first item that asks."""
        if self.config.stash[_REPORTS] and not self._reported:
            from resumecheck.report import session

            self._reported = True
            session.keep(item, self.verdict(), self._evidence, None, target=self.nodeid)

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
        whole = parent.verdict()
        points = tuple(point for point in whole.resume_points if point.step == self.point)
        verdict = dataclasses.replace(whole, resume_points=points)
        if whole.verdict == "diverged" and all(point.verdict == "equivalent" for point in points):
            verdict = dataclasses.replace(verdict, verdict="equivalent")
        _record(self, verdict)
        parent.report(self)
        if not verdict.equivalent:
            raise _failure(verdict, None)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int, str]:
        """Where the target is, for the report: the file where it has one."""
        file = Path(self.name.rpartition(":")[0])
        return (file if file.suffix == ".py" else self.path), 0, f"target {self.name}"


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


def _uses_the_fixtures(item: pytest.Item) -> bool:
    """Whether the test uses a fixture of this plugin, and not one of its own that has the same name."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name in FIXTURES:
        definition = definitions.get(name)
        if definition and getattr(definition[-1].func, "__module__", None) == __name__:
            return True
    return False


def _workbench(config: pytest.Config) -> Workbench:
    """The workbench of this pytest process, made when the first test asks for it."""
    _skip_without_the_option(config)
    if _WORKBENCH not in config.stash:
        from resumecheck.check import Workbench

        config.stash[_WORKBENCH] = Workbench()
    return config.stash[_WORKBENCH]


def _skip_without_the_option(config: pytest.Config) -> None:
    """For a fixture that is requested while the test runs, which collection cannot see."""
    if not config.getoption("resumecheck"):
        pytest.skip(SKIPPED)


def _settings(node: pytest.Item) -> dict[str, Any]:
    """The options of a test: its markers, the closest first, then the command line, then the ini file."""
    settings = dict(node.config.stash[_SETTINGS])
    for marker in reversed(list(node.iter_markers("resumecheck"))):
        if marker.args:
            raise UsageError(
                f"@pytest.mark.resumecheck takes only keywords ({', '.join(NAMES)}), got {marker.args[0]!r}"
            )
        settings.update(read_options(marker.kwargs, "@pytest.mark.resumecheck"))
    return settings


def _record(item: pytest.Item, verdict: Verdict) -> None:
    from resumecheck.report import junit

    item.user_properties.extend(junit.properties(verdict))


def _evidence(config: pytest.Config) -> Evidence | None:
    """What the last check recorded, where a page is to show it."""
    return _workbench(config).evidence() if config.stash[_HTML] is not None else None


def _failure(verdict: Verdict, reproduce: str | None) -> ResumecheckError:
    """The verdict as the error that a test fails with."""
    from resumecheck.report import terminal

    text = terminal.explanation(verdict, reproduce)
    if verdict.verdict == "diverged":
        return ResumeDivergence(text, verdict)
    return TargetError(text) if verdict.verdict == "error" else ResumecheckError(text)


def _as_explanation(excinfo: pytest.ExceptionInfo[BaseException], item: pytest.Item, when: str) -> Any:
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
