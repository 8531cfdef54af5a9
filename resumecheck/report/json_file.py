"""What was found as a JSON file, a verdict in the shape of `schema/verdict-1.json`: there as a whole, or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from resumecheck.report.whole_file import check_writable, write_whole

__all__ = ["Written", "check_writable", "write"]


class Written(Protocol):
    """What can be written: a `Verdict`, or the report of a visit to the zoo."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        ...


def write(found: Written, path: Path) -> None:
    """Write what was found to `path`.

    Raises:
        UsageError: the file cannot be written.
    """
    write_whole(json.dumps(found.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n", path, "--json")
