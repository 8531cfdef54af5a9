"""Items that share a check stay in one process of pytest-xdist, with `--dist loadgroup`."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from resumecheck.plugin import settings


def mark(item: Any) -> None:
    """Mark an item of a test over resume points, or of a target, with the group that shares its check."""
    if settings.point_of(item) is not None:
        function = getattr(item, "originalname", item.name)
        item.add_marker(pytest.mark.xdist_group(f"{item.parent.nodeid}::{function}"))
    elif hasattr(item, "point"):
        item.add_marker(pytest.mark.xdist_group(item.parent.name))


@contextlib.contextmanager
def told_by_name(items: Iterable[Any]) -> Generator[None]:
    """Within: the names of marked items end with `@group`, which is what pytest-xdist goes by.

    pytest-xdist 3.8 renames the items itself, but in a way that pytest 9.2 does not see. Here they get their own names
    back, so that a report, `--lf` and the command that repeats a test know nothing of the group.
    """
    names: dict[Any, Any] = {}
    for item in items:
        marker = item.get_closest_marker("xdist_group")
        is_ours = settings.point_of(item) is not None or hasattr(item, "point")
        if marker and is_ours and hasattr(item, "_id") and not item.nodeid.endswith(f"@{marker.args[0]}"):
            from _pytest.nodeid import coerce_node_id

            names[item] = item._id
            item._id = coerce_node_id(f"{item.nodeid}@{marker.args[0]}")
    try:
        yield
    finally:
        for item, name in names.items():
            item._id = name
