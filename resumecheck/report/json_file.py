"""What was found as a JSON file, a verdict in the shape of `schema/verdict-1.json`: there as a whole, or not there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, Protocol

from resumecheck.errors import UsageError


class Written(Protocol):
    """What can be written: a `Verdict`, or the report of a visit to the zoo."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        ...


def write(found: Written, path: Path) -> None:
    """Write what was found to `path`, by way of a temporary file beside it.

    Raises:
        UsageError: the file cannot be written.
    """
    text = json.dumps(found.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        if _is_stream(path):
            path.write_text(text, encoding="utf-8")
            return
        temporary = _temporary(path)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path.resolve())
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(_message(path, error)) from error


def check_writable(path: Path) -> None:
    """Refuse a path that `write` could not write, before any training is done for it.

    Raises:
        UsageError: the file could not be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        if _is_stream(path):
            return
        temporary = _temporary(path)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise UsageError(_message(path, error)) from error


def _is_stream(path: Path) -> bool:
    """Whether the path is a pipe or a device (`/dev/stdout`), which must be written to and never replaced."""
    # Where standard output goes to a file, /dev/stdout counts as a regular file.
    return path.absolute().parts[:2] in (("/", "dev"), ("/", "proc")) or (path.exists() and not path.is_file())


def _temporary(path: Path) -> Path:
    target = path.resolve()
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def _message(path: Path, error: OSError) -> str:
    return f"--json {path}: cannot be written ({error.strerror or error}); give a file in a directory that exists"
