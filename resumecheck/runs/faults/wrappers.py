"""What stands in the place of a file open for writing, and of a native tokenizer, and tells of their writes."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .events import FileEvents


class Stream:
    """A file open for writing that tells of its writes and of its closing."""

    def __init__(self, stream: Any, place: str, events: FileEvents) -> None:
        self.__dict__.update(_stream=stream, _place=place, _events=events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_stream"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._stream, name, value)

    def write(self, content: Any) -> Any:
        """The first one since the opening is an event."""
        self._events.writes(self._place)
        return self._stream.write(content)

    def writelines(self, lines: Any) -> None:
        """As `write`."""
        self._events.writes(self._place)
        self._stream.writelines(lines)

    def truncate(self, *size: Any) -> Any:
        """As `write`."""
        self._events.writes(self._place)
        return self._stream.truncate(*size)

    def fileno(self) -> int:
        """Whoever asks for it may write by it, as shutil does."""
        self._events.writes(self._place)
        return self._stream.fileno()

    def close(self) -> None:
        """A write that is to be torn ends here."""
        if not self._stream.closed:
            self._stream.close()
            self._events.closed(self._place)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __next__(self) -> Any:
        return next(self._stream)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


io.IOBase.register(Stream)


class Tokenizer:
    """A tokenizer of the native library that tells of its writing."""

    def __init__(self, tokenizer: Any, events: FileEvents) -> None:
        self.__dict__.update(_tokenizer=tokenizer, _events=events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tokenizer, name, value)

    def save(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """One event."""
        return self._events.native_write(path, lambda: self._tokenizer.save(path, *args, **kwargs))
