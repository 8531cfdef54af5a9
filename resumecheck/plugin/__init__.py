"""The pytest plugin: its hooks and fixtures. `settings.py` reads the options, `checks.py` makes the checks.

Everything that trains is imported when a test asks for it, so a pytest run without `--resumecheck` pays nothing. All
tests of a process share one `Workbench`, so a run that several tests ask for is made once. Options, fixtures and their
precedence: docs/plugin.md.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from resumecheck.errors import ResumecheckError, UsageError
from resumecheck.options import NAMES
from resumecheck.plugin import settings

if TYPE_CHECKING:
    from resumecheck.trajectory import Trajectory
    from resumecheck.verdict import Verdict

FIXTURES = ("resumecheck", "reference_run", "resumed_run", "assert_resume_equivalent", "resume_point")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options and their ini twins."""
    settings.register(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and read the options, so that a wrong one ends the run before it starts."""
    names = ", ".join(f"{name}=" for name in NAMES)
    config.addinivalue_line("markers", f"resumecheck({names}): trains and resumes; runs only with --resumecheck")
    try:
        settings.read_run(config)
        _configure_reports(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def _configure_reports(config: pytest.Config) -> None:
    """Prepare the reports of this run, where there will be checks and somebody asked for reports."""
    html = settings.path_option(config, "resumecheck_html")
    config.stash[settings.REPORTS] = False
    if not settings.enabled(config):
        return
    from resumecheck.report import github

    config.stash[settings.REPORTS] = html is not None or github.reports()
    if not config.stash[settings.REPORTS] or hasattr(config, "workerinput"):
        return  # A worker of pytest-xdist leaves the reports to its controller.
    from resumecheck.report import session

    if html is not None:
        session.require(html)
    config.pluginmanager.register(session.SessionReports(html), "resumecheck-reports")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the worker processes."""
    if "resumecheck.plugin.checks" in sys.modules:
        from resumecheck.plugin import checks

        checks.close(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise a test that uses `resume_point`, unless it does that itself."""
    if not _is_ours(settings.POINT, metafunc.definition):
        return
    for marker in metafunc.definition.iter_markers("parametrize"):
        names = marker.args[0] if marker.args else marker.kwargs.get("argnames", ())
        if settings.POINT in ([name.strip() for name in names.split(",")] if isinstance(names, str) else names):
            return
    try:
        points: list[int | None] = [*settings.points_of(metafunc.definition)]
    except UsageError:
        points = [None]  # The test itself says what is wrong, and only where it is run.
    metafunc.parametrize(settings.POINT, points, indirect=True, ids=[f"at={point or '?'}" for point in points])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the items of the targets, mark the tests that use the fixtures, and skip all of them without the option."""
    if config.getoption("resumecheck_target") or config.getini("resumecheck_targets"):
        from resumecheck.plugin import targets

        targets.add_targets(session, config, items)
    for item in items:
        if item.get_closest_marker("resumecheck") is None and any(_is_ours(name, item) for name in FIXTURES):
            item.add_marker("resumecheck")
        if item.get_closest_marker("resumecheck") is None:
            continue
        settings.remember_name(item)
        if not settings.enabled(config):
            item.add_marker(pytest.mark.skip(reason=settings.SKIPPED))
        elif config.pluginmanager.hasplugin("xdist"):
            from resumecheck.plugin import groups

            groups.mark(item)


@pytest.hookimpl(wrapper=True)
def pytest_collection_finish(session: pytest.Session) -> Generator[None, None, None]:
    """Tell pytest-xdist which items share a check."""
    if not getattr(session.config.option, "loadgroup", False):
        return (yield)
    from resumecheck.plugin import groups

    with groups.told_by_name(session.items):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marker that cannot be read is an error of its test, also where the test is to be skipped."""
    if item.get_closest_marker("resumecheck") is not None:
        settings.of_test(item)


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
        from resumecheck.plugin import explanation

        report.longrepr = explanation.in_place_of_traceback(call.excinfo, item, call.when)
    if item.config.stash[settings.REPORTS]:
        from resumecheck.report import session

        session.attach(item, call, report)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say at which step two recorded runs, or what they recorded, differ first."""
    if op != "==" or "resumecheck.trajectory" not in sys.modules:
        return None
    from resumecheck.plugin import comparison

    return comparison.explain_equality(left, right)


@pytest.fixture
def resumecheck(request: pytest.FixtureRequest) -> Callable[..., Verdict]:
    """Check a factory: `resumecheck(build, steps=12, at=[4])` returns the verdict.

    In a test that is parametrised with `resume_point`, the check is made once over all selected points of the test, and
    the verdict is that of its own point.

    Raises:
        ResumeDivergence: a resumed run is not the same run; the text is the explanation.
        TargetError: the target fails even when it is not interrupted.
        ResumecheckError: the uninterrupted run does not repeat itself.
        UsageError: the factory or an option cannot be used.
    """
    from resumecheck.plugin.checks import checks, narrowed, record
    from resumecheck.plugin.explanation import failure

    item, made = request.node, checks(request.config)
    point = settings.point_of(item)

    def check(build: Callable[..., Any] | str, **overrides: Any) -> Verdict:
        __tracebackhide__ = True
        options = settings.of_call(item, {"at": point, **overrides}, "resumecheck")
        if point is not None and options["at"] == [point]:
            whole, evidence = made.share(build, {**options, "at": settings.siblings(item, request.session.items)})
            verdict = narrowed(whole, point)
        else:
            verdict, evidence = made.make(build, options)
        reproduce = f"pytest --resumecheck {shlex.quote(settings.name_of(item))}"
        record(item, verdict)
        if request.config.stash[settings.REPORTS]:
            from resumecheck.report import session

            session.keep(item, verdict, evidence, reproduce)
        if not verdict.equivalent:
            raise failure(verdict, reproduce)
        return verdict

    return check


@pytest.fixture
def resume_point(request: pytest.FixtureRequest) -> int:
    """The resume point of this item: a test that asks for it becomes one item for each step of `at`."""
    point = getattr(request, "param", None)
    if point is None:
        settings.points_of(request.node)  # says what is missing
    return settings.require_point(request.node, point)


@pytest.fixture
def reference_run(request: pytest.FixtureRequest) -> Callable[..., Trajectory]:
    """The uninterrupted run: `reference_run(build, steps=12)` returns its trajectory."""
    from resumecheck.plugin.checks import checks

    item, made = request.node, checks(request.config)

    def run(build: Callable[..., Any] | str, *, steps: int | None = None) -> Trajectory:
        __tracebackhide__ = True
        options = settings.of_call(item, {"steps": steps}, "reference_run")
        return made.workbench.reference_run(build, steps=options.get("steps"))

    return run


@pytest.fixture
def resumed_run(request: pytest.FixtureRequest) -> Callable[..., Trajectory]:
    """A resumed run: `resumed_run(build, steps=12, at=4)` returns its trajectory, from step 5 on."""
    from resumecheck.plugin.checks import checks

    item, made = request.node, checks(request.config)

    def run(build: Callable[..., Any] | str, *, at: int | None = None, steps: int | None = None) -> Trajectory:
        __tracebackhide__ = True
        given = settings.point_of(item) if at is None else at
        options = settings.of_call(item, {"steps": steps}, "resumed_run")
        step = settings.require_point(item, given, "resumed_run(...): at")
        return made.workbench.resumed_run(build, at=step, steps=options.get("steps"))

    return run


@pytest.fixture
def assert_resume_equivalent(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compare two trajectories: `assert_resume_equivalent(reference, resumed, quantities=["weights", "loss"])`."""
    from resumecheck.plugin.checks import skip_without_the_option

    skip_without_the_option(request.config)
    defaults = settings.of_test(request.node)

    def compare(
        reference: Trajectory,
        resumed: Trajectory,
        quantities: Sequence[str] | None = None,
        tolerance: str | None = None,
    ) -> None:
        __tracebackhide__ = True
        from resumecheck import check

        tolerance = tolerance or defaults.get("tolerance", "bitwise")
        check.assert_resume_equivalent(reference, resumed, quantities, tolerance)

    return compare


def _is_ours(name: str, item: Any) -> bool:
    """Whether a test uses this fixture of the plugin, and not one of its own that has the same name."""
    definition = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).get(name)
    return bool(definition) and getattr(definition[-1].func, "__module__", None) == __name__
