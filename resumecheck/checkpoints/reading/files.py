"""Opening and listing: regular files only, never waiting for a pipe, never more than a bounded number of entries."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import IO

MOST_ENTRIES = 20_000
DEEPEST = 4


class Unreadable(Exception):  # noqa: N818 (it says what is wrong with the file, not with us)
    """A file that does not hold what its name promises; the text is the reason, for a person."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file: path relative to the directory, size in bytes, where a link leads, and why it cannot be read."""

    name: str
    size: int
    link: str = ""
    defect: str = ""


def list_files(root: Path, leave_out: frozenset[str] = frozenset()) -> tuple[list[Entry], list[str]]:
    """The files below a directory, and remarks about what was not looked at.

    Directories that are links are not entered. `leave_out` names directories at the top that are not entered either.
    """
    found: list[Entry] = []
    remarks: list[str] = []
    waiting = [(root, "", 0)]
    while waiting:
        directory, prefix, depth = waiting.pop()
        try:
            with os.scandir(directory) as scan:
                for item in scan:
                    name = prefix + item.name
                    if item.is_dir(follow_symlinks=False):
                        if depth == 0 and item.name in leave_out:
                            continue
                        if depth + 1 >= DEEPEST:
                            remarks.append(f"{name}/ lies too deep and was not looked at")
                        else:
                            waiting.append((directory / item.name, f"{name}/", depth + 1))
                    elif not _leads_to_a_directory(item):
                        found.append(file_entry(directory / item.name, name))
                    if len(found) + len(waiting) + len(remarks) > MOST_ENTRIES:
                        remarks.append(f"more than {MOST_ENTRIES} files: the others were not looked at")
                        return sorted(found, key=lambda entry: entry.name), remarks
        except OSError as error:
            remarks.append(f"{prefix or './'} cannot be read ({error.strerror})")
    return sorted(found, key=lambda entry: entry.name), remarks


def _leads_to_a_directory(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to itself
        return False


def file_entry(path: Path, name: str) -> Entry:
    """What can be told of a file without opening it."""
    try:
        link = os.readlink(path) if path.is_symlink() else ""
        facts = path.stat()
    except OSError as error:
        return Entry(name, 0, defect=f"cannot be read ({error.strerror})")
    if not stat.S_ISREG(facts.st_mode):
        return Entry(name, 0, link, "is not a regular file (a pipe, socket or device)")
    return Entry(name, facts.st_size, link, "" if facts.st_size else "is empty")


@contextlib.contextmanager
def open_regular(path: Path) -> Generator[IO[bytes]]:
    """A regular file, open for reading. Raises `Unreadable`, also for what fails while it is read."""
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("is not a regular file")
            yield stream
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise Unreadable(f"cannot be read ({error})") from error


def size_of(stream: IO[bytes]) -> int:
    """The size of an open file in bytes."""
    return os.fstat(stream.fileno()).st_size


def read_at_most(path: Path, limit: int) -> bytes:
    """The whole content of a file that may have up to `limit` bytes; else `Unreadable`."""
    with open_regular(path) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise Unreadable(f"has more than {limit} bytes, which is more than is read of such a file")
    return content
