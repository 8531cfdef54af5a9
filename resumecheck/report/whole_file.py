"""A report as a file: there as a whole, or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from resumecheck.errors import UsageError


def write_whole(text: str, path: Path, option: str) -> None:
    """Write a text to `path`, by way of a temporary file beside it.

    Args:
        text: what the file is to hold.
        path: the file, or a pipe or device.
        option: the option that named it, for the message.

    Raises:
        UsageError: the file cannot be written.
    """
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
        raise UsageError(_message(path, error, option)) from error


def check_writable(path: Path, option: str = "--json") -> None:
    """Refuse a path that `write_whole` could not write, before any training is done for it.

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
        raise UsageError(_message(path, error, option)) from error


def _is_stream(path: Path) -> bool:
    """Whether the path is a pipe or a device (`/dev/stdout`), which must be written to and never replaced."""
    # Where standard output goes to a file, /dev/stdout counts as a regular file.
    return path.absolute().parts[:2] in (("/", "dev"), ("/", "proc")) or (path.exists() and not path.is_file())


def _temporary(path: Path) -> Path:
    target = path.resolve()
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def _message(path: Path, error: OSError, option: str) -> str:
    return f"{option} {path}: cannot be written ({error.strerror or error}); give a file in a directory that exists"
