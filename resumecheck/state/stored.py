"""Objects of the target as bytes: what else it knows of the run is named by its path, not stored with it.

An object that training makes when it first needs it (a schedule, a table of means by layer) is missing in a resumed
run. It is pickled in one run and made in another; a model, an optimizer or another object outside it that it holds is
the live one there.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any


def dump_object(value: Any, path: str, known: Mapping[int, str], room: int) -> bytes:
    """Pickle an object; of known objects that do not lie under it, it holds the paths.

    Args:
        value: the object.
        path: where it lies.
        known: id of an object -> its path.
        room: the largest size in bytes.

    Raises:
        ValueError: it is larger.
        Exception: something in it cannot be pickled.
    """
    inside = (f"{path}.", f"{path}[")

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> str | None:
            other = known.get(id(obj))
            return None if other is None or obj is value or other == path or other.startswith(inside) else other

    buffer = _Bounded(room)
    Pickler(buffer).dump(value)
    return buffer.getvalue()


def load_object(stored: bytes, others: Mapping[str, Any]) -> Any:
    """The object that `dump_object` has stored.

    Raises:
        KeyError: it holds an object that `others` lacks.
    """

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: str) -> Any:
            return others[pid]

    return Unpickler(io.BytesIO(stored)).load()


class _Bounded(io.BytesIO):
    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise ValueError("no room is left")
        return super().write(data)
