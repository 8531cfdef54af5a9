"""Files that an option names, read and written line by line; what is wrong is said with option, file and line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
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


def read_objects(option: str, given: str, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The rows of a file, each with a text (`str`) or a list of at least one text (`list`) in these fields.

    The field `neg` may be missing or empty, and is else a list of texts.

    Raises:
        UsageError: the file cannot be read, or a row is not like that.
    """
    rows: list[dict[str, Any]] = []
    for where, row in read_values(option, given):
        known = {**fields, "neg": list} if isinstance(row, dict) and row.get("neg") else fields
        for field, kind in known.items():
            value = row.get(field) if isinstance(row, dict) else None
            texts = value if isinstance(value, list) else [value]
            if not isinstance(value, kind) or not texts or not all(isinstance(text, str) for text in texts):
                what = "a text" if kind is str else "a list of texts"
                raise UsageError(f"{where}: {field}: expected {what}")
        rows.append(row)
    return rows


def output_path(option: str, given: str) -> Path:
    """The file to write, before the work is done that it is to hold.

    Raises:
        UsageError: there is no directory for it.
    """
    path = Path(given)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--{option} {given}: expected the name of a file in a directory that is there")
    return path


def write_objects(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows as a whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
