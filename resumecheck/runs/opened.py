"""Notes which files a run opens, also in the processes that it forks: from them its source and its data are known.

What native code opens by itself (a tokenizer, a safetensors or Parquet file) raises no event, and is not seen.
`is_installed` tells the files of a project from those of installed packages.
"""

from __future__ import annotations

import contextlib
import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent

#: In the directory of a run: `r PATH` or `w PATH` a line, each path once for each process and each way.
OPENED = "opened.txt"


def note_opened(directory: Path) -> None:
    """Note from now on every file that this process opens; it cannot be undone, as an audit hook cannot."""
    record = os.open(directory / OPENED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    seen: set[tuple[str, str]] = set()

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        way = "w" if flags & (os.O_WRONLY | os.O_RDWR) else "r"
        with contextlib.suppress(OSError):  # A working directory that is gone must not fail the target.
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if (way, path) not in seen and "\n" not in path:
                seen.add((way, path))
                os.write(record, f"{way} {path}\n".encode("utf-8", "surrogateescape"))

    sys.addaudithook(note)


def read_opened(directory: Path) -> tuple[list[str], set[str]]:
    """The paths that were opened for reading, in the order of the first time, and those opened for writing."""
    try:
        lines = (directory / OPENED).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return [], set()
    read = dict.fromkeys(line[2:] for line in lines if line.startswith("r "))
    return list(read), {line[2:] for line in lines if line.startswith("w ")}


def is_installed(path: Path) -> bool:
    """Whether a file belongs to Python, to an installed package or to resumecheck, and not to a project."""
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return True
    paths = sysconfig.get_paths()
    libraries = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places = (*libraries, *site.getsitepackages(), site.getusersitepackages(), str(_PACKAGE))
    return is_below(path, places) or is_below(path.resolve(), places)


def is_below(path: Path, places: Iterable[str]) -> bool:
    """Whether a path is one of these places or lies in one."""
    return any(path.is_relative_to(place) for place in places)
