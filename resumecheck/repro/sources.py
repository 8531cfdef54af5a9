"""What the runs of a target read: source to embed, data that belongs to it, and files that are elsewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from resumecheck.runs.opened import is_below, is_installed, read_opened

if TYPE_CHECKING:
    from resumecheck.runs.bench import Run

#: Of the system, or of no interest to a reader.
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/run", "/var/lib")


@dataclasses.dataclass(frozen=True)
class Sources:
    """What the runs of a target read.

    Attributes:
        python: Python files outside of what is installed, in the order in which they were opened.
        data: other files that were read and that no run had written.
    """

    python: tuple[Path, ...]
    data: tuple[Path, ...]


def read_sources(runs: Iterable[Run]) -> Sources:
    """What these runs read; they were made with `watch_files`."""
    opened: dict[str, None] = {}
    written: set[str] = set()
    own: set[str] = set()
    for run in runs:
        own.add(str(run.directory.parent))
        read, wrote = read_opened(run.directory)
        opened |= dict.fromkeys(read)
        written |= wrote
    python: dict[Path, None] = {}
    data: dict[Path, None] = {}
    for name in opened:
        path = _source_of(name)
        if path.suffix == ".py" and path.is_file() and not is_installed(path):
            python[path] = None
        elif name not in written and not is_below(path, own) and not _is_system(path) and path.is_file():
            data[path] = None
    return Sources(tuple(python), tuple(data))


def _is_system(path: Path) -> bool:
    """Whether a file is of the system, of a cache that fills itself, or of a user's settings."""
    caches = [
        os.environ[name] for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME") if name in os.environ
    ]
    if is_installed(path) or is_below(path, (*_SYSTEM, sys.prefix, sys.base_prefix, *caches)):
        return True
    home = Path.home()
    return path.is_relative_to(home) and path.relative_to(home).parts[0].startswith(".")


def _source_of(name: str) -> Path:
    """The Python file that was opened, also where that was its bytecode."""
    if name.endswith(".pyc") or ".pyc." in name:
        try:
            return Path(importlib.util.source_from_cache(name.partition(".pyc")[0] + ".pyc"))
        except (ValueError, NotImplementedError):
            return Path(name)
    return Path(name)


def search_roots(files: Iterable[Path], path: Iterable[str]) -> list[Path]:
    """The directories from which these files are imported: entries of the path, and the parents of top packages."""
    entries = list(dict.fromkeys(Path(entry).resolve() for entry in path if entry and os.path.isdir(entry)))
    roots: dict[Path, None] = {}
    entries = [entry for entry in entries if entry != Path(entry.anchor)]
    for file in files:
        holding = [entry for entry in entries if file.is_relative_to(entry) and not is_installed(entry / "x")]
        roots |= dict.fromkeys(holding or [_package_root(file)])
    return [entry for entry in entries if entry in roots] + [root for root in roots if root not in entries]


def _package_root(file: Path) -> Path:
    """The directory that holds the top package of a file."""
    directory = file.parent
    while (directory / "__init__.py").exists():
        directory = directory.parent
    return directory
