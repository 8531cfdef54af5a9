"""Files that an option names, line by line; what is wrong with one is said with option, file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resumecheck.errors import UsageError


def read_lines(option: str, given: str) -> list[str]:
    """The lines of a text file.

    Raises:
        UsageError: there is no such file, or it is not UTF-8.
    """
    path = Path(given)
    if not path.is_file():
        raise UsageError(f"--{option} {given}: no such file")
    try:
        # Not `splitlines`: JSON texts may hold other line separators (U+2028 and its kin) as they are.
        return path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"--{option} {given}: not UTF-8 ({error})") from error


def read_values(option: str, given: str) -> Iterator[tuple[str, Any]]:
    """The JSON value of each line that is not empty, with `--option file:line` for messages.

    Raises:
        UsageError: the file cannot be read, a line is not JSON, or there is none.
    """
    empty = True
    for number, line in enumerate(read_lines(option, given), 1):
        if not line.strip():
            continue
        where = f"--{option} {given}:{number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{where}: not JSON ({error})") from error
        empty = False
        yield where, value
    if empty:
        raise UsageError(f"--{option} {given}: the file has no rows")
