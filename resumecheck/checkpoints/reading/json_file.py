"""JSON of bounded size and depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resumecheck.checkpoints.reading.files import Unreadable, read_at_most

MOST_BYTES = 32 << 20
#: Brackets and commas: each value costs some fifty bytes once it is read.
MOST_VALUES = 3_000_000


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `Unreadable`."""
    return parse_object(read_at_most(path, MOST_BYTES))


def parse_object(content: bytes) -> dict[str, Any]:
    """The object that JSON text holds. Raises `Unreadable`."""
    if not content.strip():
        raise Unreadable("is empty")
    if sum(map(content.count, (b"[", b"{", b","))) > MOST_VALUES:
        raise Unreadable(f"holds more than {MOST_VALUES} values, which is more than is read of such a file")
    try:
        found = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise Unreadable("is nested too deep to be read") from error
    except ValueError as error:
        raise Unreadable(f"is not JSON ({str(error)[:120]})") from error
    if not isinstance(found, dict):
        raise Unreadable("is not a JSON object")
    return found
