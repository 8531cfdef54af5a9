"""A module that a specimen imports when training needs it, and that holds what it has counted."""

from __future__ import annotations


class Record:
    """How often the loss was computed."""

    calls = 0


record: Record | None = None
