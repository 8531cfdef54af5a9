"""What an object that is no container holds: attributes, slots, or what Python itself would pickle of it."""

from __future__ import annotations

import contextlib
import copyreg
import sys
from typing import Any

import xxhash


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes in `__dict__` and in the slots of all base classes."""
    attributes = dict(vars(value)) if hasattr(value, "__dict__") else {}
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            with contextlib.suppress(AttributeError):
                attributes.setdefault(name, getattr(value, name))
    return attributes


def told_by_reduction(cls: type) -> bool:
    """Whether objects of a class without attributes are read by their reduction: only the standard library's.

    Those of others may load or change something when they are asked.
    """
    return cls.__module__.partition(".")[0] in sys.stdlib_module_names and cls is not object


def digest_of_reduction(value: Any) -> str:
    """A short text and a digest of all that a pickle would hold (`array`, `decimal`, `ctypes`, `datetime`).

    Raises:
        TypeError: the object cannot be pickled, so that it does not tell its value.
    """
    registered = copyreg.dispatch_table.get(type(value))
    made = registered(value) if registered is not None else value.__reduce_ex__(4)
    text = repr(made[1:])
    if " at 0x" in text:
        raise TypeError(f"a {type(value).__name__} is made of objects that do not tell their value")
    shown = repr(value)
    name = shown if len(shown) <= 60 else type(value).__name__
    return f"={name}#{xxhash.xxh3_64_hexdigest(text.encode())}"
