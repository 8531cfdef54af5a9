"""The options of a pytest run and of each of its tests: call over marker over command line over ini file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from resumecheck.errors import UsageError
from resumecheck.options import NAMES, PLUGIN, parse_steps, read_options

SKIPPED = "resumecheck trains models: runs only with --resumecheck"

#: The fixture whose value is a resume point.
POINT = "resume_point"

#: Whether this run writes reports.
REPORTS = pytest.StashKey[bool]()

_OF_THE_RUN = pytest.StashKey[dict[str, Any]]()
_NODE_ID = pytest.StashKey[str]()

_DEFAULT = {"text": None, "flag": False, "list": []}


def register(parser: pytest.Parser) -> None:
    """Register each option of `PLUGIN` with its ini twin."""
    group = parser.getgroup("resumecheck", "resumecheck: is a resumed training run still the same run?")
    for option in PLUGIN:
        form: dict[str, Any] = {"action": "store_true"}
        if option.kind != "flag":
            form = {"metavar": option.metavar, "action": "append" if option.kind == "list" else "store"}
        group.addoption(option.flag, default=None, help=option.help, **form)
        kind = {"text": "string", "flag": "bool", "list": "linelist"}[option.kind]
        parser.addini(option.ini, f"as {option.flag}, which wins", type=kind, default=_DEFAULT[option.kind])


def read_run(config: pytest.Config) -> None:
    """Read the options of the run, so that a wrong one ends it before it starts.

    Raises:
        UsageError: an option of the command line or of the ini file cannot be read.
    """
    named = [option for option in PLUGIN if option.name]
    ini = {option.name: config.getini(option.ini) or None for option in named}
    given = {option.name: config.getoption(option.destination) or None for option in named}
    settings = read_options(ini, "ini option resumecheck_*")
    config.stash[_OF_THE_RUN] = {**settings, **read_options(given, "option --resumecheck-*")}


def of_run(config: pytest.Config) -> dict[str, Any]:
    """The options of a check as command line and ini file give them."""
    return config.stash[_OF_THE_RUN]


def enabled(config: pytest.Config) -> bool:
    """Whether this run trains."""
    return bool(config.getoption("resumecheck") or config.getini("resumecheck"))


def path_option(config: pytest.Config, name: str) -> Path | None:
    """A path: as on the command line, or as in the ini file, relative to that."""
    given, ini = config.getoption(name), config.getini(name)
    if given:
        return (config.invocation_params.dir / given).absolute()
    return (config.rootpath / ini).absolute() if ini else None


def of_test(node: pytest.Item | Any) -> dict[str, Any]:
    """The options of a test: its markers, the closest first, then those of the run.

    Raises:
        UsageError: a marker cannot be read; the message names the test.
    """
    settings = dict(of_run(node.config))
    for marker in reversed(list(node.iter_markers("resumecheck"))):
        where = f"{name_of(node)}: @pytest.mark.resumecheck"
        if marker.args:
            raise UsageError(f"{where} takes only keywords ({', '.join(NAMES)}), got {marker.args[0]!r}")
        settings.update(read_options(marker.kwargs, where))
    return settings


def of_call(node: pytest.Item | Any, overrides: Mapping[str, Any], call: str) -> dict[str, Any]:
    """The options of a call of a fixture in a test, then those of the test.

    Raises:
        UsageError: an option cannot be read; the message names the test and the call.
    """
    return {**of_test(node), **read_options(overrides, f"{name_of(node)}: {call}(...)")}


def remember_name(item: pytest.Item) -> None:
    """Keep the name by which pytest finds the test again: pytest-xdist appends the group to it."""
    item.stash[_NODE_ID] = item.nodeid


def name_of(item: pytest.Item) -> str:
    """The name by which pytest finds the test again."""
    return item.stash.get(_NODE_ID, item.nodeid)


def points_of(node: Any) -> list[int]:
    """The steps over which a test that uses `resume_point` is parametrised.

    Raises:
        UsageError: the options give no steps; the message names the test.
    """
    settings = of_test(node)
    at, steps = settings.get("at"), settings.get("steps")
    if at == "every" and steps is not None:
        return list(range(1, steps))
    if isinstance(at, list):
        return list(dict.fromkeys(at))
    raise UsageError(
        f"{name_of(node)}: {POINT} needs its steps before the target is built; expected at=[3, 7] in the marker, "
        f"--resumecheck-at or resumecheck_at (or at='every' with steps=), got at={at!r}"
    )


def point_of(item: Any) -> int | None:
    """The resume point that a test is parametrised with, None where it is not."""
    return getattr(getattr(item, "callspec", None), "params", {}).get(POINT)


def require_point(item: pytest.Item, point: Any, what: str = POINT) -> int:
    """The resume point, if it is one.

    Raises:
        UsageError: it is not a step; the message names the test.
    """
    try:
        return parse_steps(point)
    except (UsageError, TypeError):
        raise UsageError(f"{name_of(item)}: {what}: {point!r} is not a step; give a whole number from 1 on") from None


def siblings(item: Any, items: Iterable[Any]) -> list[int]:
    """The resume points of all selected items of one test that differ in nothing else."""
    mine = _apart_from_the_point(item)
    found = {point_of(other) for other in items if point_of(other) is not None and _apart_from_the_point(other) == mine}
    return sorted(point for point in found if point is not None)


def _apart_from_the_point(item: Any) -> tuple[Any, ...]:
    """The test of an item, and what else it is parametrised with: the same objects for all items of the test."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    others = tuple((name, id(value)) for name, value in sorted(params.items()) if name != POINT)
    return item.parent, getattr(item, "originalname", item.name), others
