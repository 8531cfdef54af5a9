"""Units of the census: plain values that can be taken out of one run, stored, and put into another.

A leaf, a tensor, a container of such, a private random generator. `plain_leaves` gives a unit's entries for comparing,
`portable` what is stored of it, `put_value` puts a stored unit in the place of a live one.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from resumecheck.state.digest import digest

PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, enum.Enum)
ARRAYS = (torch.Tensor, np.ndarray)
GENERATORS = (random.Random, torch.Generator, np.random.Generator, np.random.RandomState)
LONG_SEQUENCE = 512

Setter = Callable[[Any], None]


def generator_state(generator: Any) -> Any:
    """The state of a private random generator, as plain values."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state()


class StoredGenerator:
    """A private random generator by kind and state, so that one can be made where there is none."""

    def __init__(self, generator: Any) -> None:
        self.kind = type(generator)
        self.bits = type(generator.bit_generator) if isinstance(generator, np.random.Generator) else None
        self.state = generator_state(generator)

    def restore(self, generator: Any) -> None:
        """Put the state into a live generator."""
        if isinstance(generator, random.Random):
            generator.setstate(self.state)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = self.state
        else:
            generator.set_state(self.state)

    def make(self) -> Any:
        """A new generator in this state."""
        generator = self.kind(self.bits()) if self.bits is not None else self.kind()
        self.restore(generator)
        return generator


@dataclasses.dataclass(frozen=True)
class SameObject:
    """Stands for the object that the census of the same run finds first under `path`."""

    path: str


def portable(value: Any) -> Any:
    """What is stored of a unit: generators by state, tensors as CPU copies."""
    if isinstance(value, GENERATORS):
        return StoredGenerator(value)
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value


def put_value(value: Any, stored: Any, setter: Setter | None) -> bool:
    """Put a stored value in the place of a live one: in place where identity matters, else by its setter."""
    if isinstance(stored, StoredGenerator):
        if isinstance(value, stored.kind):
            stored.restore(value)
        elif setter is not None:
            setter(stored.make())
        else:
            return False
    elif isinstance(value, torch.Tensor) and isinstance(stored, torch.Tensor) and value.shape == stored.shape:
        with torch.no_grad():
            value.detach().copy_(stored)
    elif (
        isinstance(value, list | collections.deque)
        and isinstance(stored, list | collections.deque)
        and (setter is None or _bound(value) == _bound(stored))
    ):
        value.clear()
        value.extend(stored)
    elif (isinstance(value, dict) and isinstance(stored, Mapping)) or (
        isinstance(value, set) and isinstance(stored, set)
    ):
        value.clear()
        value.update(stored)
    elif setter is not None:
        try:
            setter(stored)
        except (AttributeError, TypeError):
            return False
    else:
        return False
    return True


def _bound(value: Any) -> str:
    """How many elements a deque may have, in words; nothing where it may have any number."""
    most = value.maxlen if isinstance(value, collections.deque) else None
    return f" of at most {most}" if most is not None else ""


def set_item(container: Any, key: Any, value: Any) -> None:
    """A setter for an element of a container."""
    container[key] = value


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a container holds nothing but leaves and containers of leaves."""
    if isinstance(value, (*PLAIN, *ARRAYS)):
        return not isinstance(value, torch.nn.Parameter)
    if depth > 6:
        return False
    if type(value) in (dict, collections.OrderedDict, collections.defaultdict, collections.Counter):
        return all(isinstance(key, (*PLAIN, tuple)) for key in value) and all(
            is_plain(item, depth + 1) for item in value.values()
        )
    if type(value) in (list, tuple, set, frozenset, collections.deque) or (
        isinstance(value, tuple) and hasattr(value, "_fields")
    ):
        ends = value if len(value) <= LONG_SEQUENCE else list(itertools.islice(value, 50))
        return all(is_plain(item, depth + 1) for item in ends)
    return False


def plain_leaves(value: Any, path: str) -> list[tuple[str, str]]:
    """Entries of a unit: a leaf each where there are at most 64, else one digest."""
    if isinstance(value, Mapping) and len(value) <= 64:
        items = [(f"{path}.len", f"={len(value)}")]
        for key, item in value.items():
            items += plain_leaves(item, f"{path}[{key!r}]")
        return items
    if isinstance(value, list | tuple | collections.deque) and len(value) <= 64:
        items = [(f"{path}.len", f"={len(value)}{_bound(value)}")]
        for index, item in enumerate(value):
            items += plain_leaves(item, f"{path}[{index}]")
        return items
    if isinstance(value, list | tuple | collections.deque) and len(value) > LONG_SEQUENCE:
        shown = [value[index] for index in (*range(100), *range(-100, 0))]
        return [(f"{path}.len", f"={len(value)}{_bound(value)}"), (path, digest(shown))]
    if isinstance(value, np.generic | enum.Enum):
        return [(path, repr(value))]
    return [(path, digest(list(value) if isinstance(value, collections.deque) else value))]
