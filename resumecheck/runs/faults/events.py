"""Counts what changes below a directory, and dies at one of these events, whole or with the file torn."""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from .wrappers import Stream, Tokenizer

#: Functions of `os` that change a directory -> the kind of event.
_KINDS = {
    "rename": "rename",
    "replace": "rename",
    "unlink": "remove",
    "remove": "remove",
    "rmdir": "rmdir",
    "mkdir": "mkdir",
    "truncate": "truncate",
    "link": "link",
    "symlink": "link",
}
_WRITING = os.O_WRONLY | os.O_RDWR
#: As they are before anything is wrapped.
_truncate, _unlink = os.truncate, os.unlink

Action = Callable[[], object]


class FileEvent(NamedTuple):
    """One event: its kind, the path below the directory, and whether the file can be torn in the middle of it."""

    kind: str
    path: str
    tears: bool


#: What a process dies of that dies after the last event.
END = FileEvent("end", ".", False)


class FileEvents:
    """Counts the events below `root` in this process; what it wraps stays wrapped.

    Args:
        root: the directory.
        die_at: number of the event that the process does not survive, from 1 on; None to only list them.
        torn: die in the middle of the event.
        record: `stop` writes the events there as JSON, and a death the last one.
        active: whether to count from now on; else from `start`.
        strangers: whether files that change without an event are looked for. Wrong where other processes of the run
            write below `root` too.

    Example:
        >>> events = FileEvents("out")  # doctest: +SKIP
        >>> save("out")  # doctest: +SKIP
        >>> events.stop()  # doctest: +SKIP
        >>> events.seen  # doctest: +SKIP
        [FileEvent(kind='create', path='state.json', tears=False), FileEvent(kind='write', path='state.json', ...)]
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        die_at: int | None = None,
        torn: bool = False,
        *,
        record: str | os.PathLike[str] | None = None,
        active: bool = True,
        strangers: bool = True,
    ) -> None:
        self.root = os.path.realpath(root)
        self.die_at = die_at
        self.torn = torn
        self.record = record
        self.seen: list[FileEvent] = []
        self.process = os.getpid()
        self.active = False
        self.strangers = strangers
        self._open = io.open
        self._silent = False
        self._tearing: str | None = None
        self._written: dict[str, int] = {}
        self._known: dict[str, tuple[int, int, int]] = {}
        self._patch_python()
        if active:
            self.start()

    def start(self) -> None:
        """Count from now on; also what torch, safetensors and tokenizers write, as far as they are imported."""
        self._patch_native_writers()
        self._written.clear()
        self._known = self._look()
        self.active = True

    def stop(self) -> None:
        """Count no more; where more events were expected than have been, this is the one that is not survived."""
        if self._counts():
            self._before_the_next()
            if self.die_at is not None and self.die_at > len(self.seen):
                self.seen.append(END)
                self._die()
            self.active = False
            self._note(self.seen)

    # --- events -----------------------------------------------------------------------------------------------------

    def event(self, kind: str, path: str, tear: Action | None = None, *, later: bool = False) -> None:
        """One more event is about to happen.

        Args:
            kind: what it is.
            path: the file or directory, absolute.
            tear: leaves it half done.
            later: it is a write that goes on, and can be torn when the file is closed or something else happens.
        """
        if not self._counts():
            return
        self._before_the_next()
        self._count(kind, path, tear, later=later)

    def _count(self, kind: str, path: str, tear: Action | None, *, later: bool = False) -> None:
        self.seen.append(FileEvent(kind, os.path.relpath(path, self.root), later or tear is not None))
        if len(self.seen) != self.die_at:
            return
        if not self.torn:
            self._die()
        elif tear is not None:
            tear()
            self._die()
        else:
            self._tearing = path

    def _before_the_next(self) -> None:
        """End a write that is to be torn; then count what has changed without an event."""
        if self._tearing is not None:
            self._tear(self._tearing)
            self._die()
        if not self.strangers:
            return
        now = self._look()
        for path in sorted(now):
            if now[path] != self._known.get(path) and path not in self._written:
                if path not in self._known and not self.torn and len(self.seen) + 1 == self.die_at:
                    _unlink(path)  # As it was before the write, of which nothing was seen.
                self._count("write", path, functools.partial(self._tear, path))
        self._known = now

    def _counts(self) -> bool:
        return self.active and not self._silent and os.getpid() == self.process

    def _happened(self) -> None:
        """What an event has changed is known from now on."""
        if self._counts() and self.strangers:
            self._known = self._look()

    def _look(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(directory, name)
                with contextlib.suppress(OSError):
                    facts = os.lstat(path)
                    found[path] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        return found

    def _tear(self, path: str) -> None:
        """Leave half of what was written since the file was opened."""
        tear(path, self._written.get(path, 0))

    def _die(self) -> None:
        self._note(self.seen[-1])
        os.kill(self.process, signal.SIGKILL)

    def _note(self, facts: Any) -> None:
        self._silent = True
        if self.record is not None:
            with self._open(self.record, "w", encoding="utf-8") as file:
                json.dump(facts, file)
        self._silent = False

    def _below(self, path: Any, directory: int | None = None) -> str | None:
        """The absolute path where it lies below the root, or is it."""
        if isinstance(path, int):
            path = path_of(path)
        elif not isinstance(path, str | bytes | os.PathLike):
            return None
        path = os.fsdecode(path)
        if directory is not None:
            path = os.path.join(path_of(directory), path)
        path = os.path.abspath(path)
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        return path if path == self.root or path.startswith(self.root + os.sep) else None

    # --- Python's own functions -------------------------------------------------------------------------------------

    def _patch_python(self) -> None:
        for name, kind in _KINDS.items():
            if hasattr(os, name):
                self._replace(os, name, functools.partial(self._operation, kind))
        self._replace(os, "open", self._os_open)
        self._replace(os, "write", self._os_write)
        self._replace(os, "close", self._os_close)
        for name in ("fsync", "fdatasync"):
            if hasattr(os, name):
                self._replace(os, name, self._sync)
        opening: Any = functools.wraps(self._open)(functools.partial(self._stream))
        builtins.open = io.open = opening

    def _replace(self, module: Any, name: str, around: Callable[..., Any]) -> None:
        original = getattr(module, name)
        wrapped = functools.wraps(original)(functools.partial(around, original))
        for group in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if original in group:
                group.add(wrapped)
        setattr(module, name, wrapped)

    def _operation(self, kind: str, original: Callable[..., Any], path: Any, *args: Any, **kwargs: Any) -> Any:
        """A rename, a removal, a new directory, ..."""
        place = None
        if self._counts():
            directory = kwargs.get("dir_fd", kwargs.get("src_dir_fd"))
            place = self._below(path, directory)
            if place is None and kind in ("rename", "link") and args:
                place = self._below(args[0], kwargs.get("dst_dir_fd"))
            if place is not None and _is_change(kind, place):
                self.event(kind, place)
        result = original(path, *args, **kwargs)
        if place is not None:
            self._happened()
        return result

    def _os_open(self, original: Callable[..., Any], path: Any, flags: int, *args: Any, **kwargs: Any) -> Any:
        place = None
        if self._counts() and flags & _WRITING:
            place = self._below(path, kwargs.get("dir_fd"))
            changes = flags & os.O_TRUNC or (flags & os.O_CREAT and place is not None and not os.path.lexists(place))
            if place is not None and changes:
                self._created(place)
        descriptor = original(path, flags, *args, **kwargs)
        if place is not None:
            self._happened()
        return descriptor

    def _os_write(self, original: Callable[..., Any], descriptor: int, content: Any) -> Any:
        if self._counts():
            self.writes(self._below(descriptor))
        return original(descriptor, content)

    def _os_close(self, original: Callable[..., Any], descriptor: int) -> Any:
        place = self._below(descriptor) if self._tearing is not None and self._counts() else None
        result = original(descriptor)
        self.closed(place)
        return result

    def _sync(self, original: Callable[..., Any], descriptor: Any) -> Any:
        if self._counts():
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            place = self._below(number)
            if place is not None:
                # What is not synced need not be on the disk: half of it is.
                self.event("sync", place, functools.partial(self._tear, place) if os.path.isfile(place) else None)
        return original(descriptor)

    def _stream(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """`open`: a stream for writing below the root tells of its writes."""
        if os.getpid() != self.process or not isinstance(mode, str) or not set(mode) & set("wax+"):
            return self._open(file, mode, *args, **kwargs)
        opener = kwargs.get("opener")
        place = self._below(file) if opener is None else None
        if place is not None and not isinstance(file, int) and ("w" in mode or not os.path.lexists(place)):
            self._created(place)
        stream = self._open(file, mode, *args, **kwargs)
        if opener is not None:
            place = self._below(stream.fileno())
        if place is None:
            return stream
        self._happened()
        return Stream(stream, place, self)

    def _created(self, place: str) -> None:
        if self._counts():
            self._written.pop(place, None)
            self.event("create", place)

    def writes(self, place: str | None) -> None:
        """A file is written to; only the first write since its opening is an event."""
        if place is not None and place not in self._written and self._counts():
            size = os.path.getsize(place) if os.path.exists(place) else 0
            self.event("write", place, later=True)
            self._written[place] = size

    def closed(self, place: str | None) -> None:
        """A file is closed: if it is to be torn, that is now."""
        if place is not None and place == self._tearing and self._counts():
            self._before_the_next()

    # --- native writers ---------------------------------------------------------------------------------------------

    def _patch_native_writers(self) -> None:
        for module, name in (
            ("torch", "save"),
            ("safetensors.torch", "save_file"),
            ("safetensors.torch", "serialize_file"),
            ("safetensors.numpy", "serialize_file"),
        ):
            if hasattr(sys.modules.get(module), name):
                self._patch_writer(sys.modules[module], name)
        for module, name in (
            ("transformers.tokenization_utils_tokenizers", "TokenizersBackend"),
            ("transformers.tokenization_utils_fast", "PreTrainedTokenizerFast"),
        ):
            kind = getattr(sys.modules.get(module), name, None)
            native = kind.__dict__.get("backend_tokenizer") if kind is not None else None
            if kind is not None and isinstance(native, property) and native.fget is not None:
                read = native.fget
                kind.backend_tokenizer = property(lambda tokenizer, read=read: Tokenizer(read(tokenizer), self))

    def _patch_writer(self, module: Any, name: str) -> None:
        original = getattr(module, name)

        @functools.wraps(original)
        def write(content: Any, *args: Any, **kwargs: Any) -> Any:
            path = args[0] if args else kwargs.get("f", kwargs.get("filename"))
            return self.native_write(path, lambda: original(content, *args, **kwargs))

        setattr(module, name, write)

    def native_write(self, path: Any, write: Callable[[], Any]) -> Any:
        """A file that is written as a whole, by code of which no single write is seen."""
        place = self._below(path) if self._counts() and not isinstance(path, int) else None
        if place is None:
            return write()

        def silently() -> Any:
            self._silent = True
            try:
                return write()
            finally:
                self._silent = False

        self._written[place] = 0
        self.event("write", place, lambda: (silently(), tear(place)))
        result = silently()
        self._happened()
        return result


def _is_change(kind: str, place: str) -> bool:
    """Whether an operation can succeed: else it is no event, but an error that its caller expects."""
    if kind == "mkdir":
        return os.path.isdir(os.path.dirname(place)) and not os.path.lexists(place)
    return os.path.lexists(place)


def tear(path: str | os.PathLike[str], start: int = 0) -> None:
    """Cut off the second half of what a file holds after its first `start` bytes."""
    size = os.path.getsize(path)
    if size > start:
        _truncate(path, start + (size - start) // 2)


def path_of(descriptor: int) -> str:
    """The path that a descriptor was opened by; a text that is no path where the system does not tell."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return f"descriptor {descriptor}"
