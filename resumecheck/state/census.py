"""What a census found: every value that training can reach, by path, and how to put one in the place of another.

Two censuses taken at the same moment of two runs show by path what no checkpoint holds: `model.calls: expected 5, got
0`. `Census.entries` is for comparing, `Census.units` is for putting a value of one run into another.
`walk.py` takes it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
import types
from pathlib import Path
from typing import Any

from resumecheck.state.process import VARIABLE, set_variable
from resumecheck.state.stored import dump_object, load_object
from resumecheck.state.units import (
    GENERATORS,
    PLAIN,
    SameObject,
    Setter,
    StoredGenerator,
    portable,
    put_value,
)

#: How many bytes a stored object may have, and all those of a census together.
OBJECT_ROOM, OBJECTS_ROOM = 4 * 2**20, 64 * 2**20

#: Stored with an object that holds them: whether it is the same number or text says nothing.
_BY_VALUE = (*PLAIN, *GENERATORS, type, types.FunctionType)

#: Stands for what could not be stored.
_NOT_STORED = b""


class Census:
    """Values by path.

    Attributes:
        entries: path -> digest of a leaf.
        units: path -> (live value, setter): what can be taken out of one run and put into another as a whole.
        unit_of: path of an entry -> path of the unit that holds it.
        tensor_paths: id of a parameter outside the model -> its path.
        roots: name -> the object at which the walk began.
        objects: path -> (live object, setter) of objects that the target holds, and of containers of such: what can be
            put as a whole where the other run has none.
        owners: path -> the object there, so that an attribute that is missing can be set.
        networks: path -> the module or parameter that was first found there; a second path to it is an entry
            `is PATH`, so that a run in which another object hangs there differs.
        shadows: paths that hold tensors of the shapes of the model's parameters: an average or another copy of them.
        library: paths inside objects of installed libraries.
        left_out: path -> why it was not walked.
    """

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.units: dict[str, tuple[Any, Setter | None]] = {}
        self.unit_of: dict[str, str] = {}
        self.tensor_paths: dict[int, str] = {}
        self.roots: dict[str, Any] = {}
        self.objects: dict[str, tuple[Any, Setter | None]] = {}
        self.owners: dict[str, Any] = {}
        self.networks: dict[str, Any] = {}
        self.shadows: list[str] = []
        self.library: list[str] = []
        self.left_out: dict[str, str] = {}

    def write(self, path: Path) -> None:
        """Store entries and what was left out as JSON."""
        facts = {
            "entries": self.entries,
            "units": self.unit_of,
            "objects": list(self.objects),
            "shadows": self.shadows,
            "library": self.library,
            "left_out": self.left_out,
        }
        path.write_text(json.dumps(facts), encoding="utf-8")

    def write_values(self, path: Path) -> None:
        """Store every unit, and as far as there is room every object; what does not pickle is stored as nothing."""
        values: dict[str, bytes] = {}
        for name, (value, _) in self.units.items():
            values[name] = _NOT_STORED
            with contextlib.suppress(Exception):
                values[name] = pickle.dumps(portable(value))
        room = OBJECTS_ROOM
        known = {id(item): name for name, item in self._by_path().items() if not isinstance(item, _BY_VALUE)}
        for name, (value, _) in self.objects.items():
            values[name] = _NOT_STORED
            with contextlib.suppress(Exception):
                values[name] = dump_object(value, name, known, min(room, OBJECT_ROOM))
            room -= len(values[name])
        path.write_bytes(pickle.dumps(values))

    def _by_path(self) -> dict[str, Any]:
        return {**self.owners, **self.networks, **self.roots}

    def put(self, path: str, stored: bytes | None) -> bool:
        """Put a stored unit in place, or take away what the other run does not have; False where that is impossible."""
        owner_path, _, attribute = path.rpartition(".")
        if path.startswith(VARIABLE):
            set_variable(path.removeprefix(VARIABLE), pickle.loads(stored) if stored is not None else None)
            return True
        owner = self.owners.get(owner_path)
        if stored == _NOT_STORED:
            return False
        if stored is None:
            if owner is None or attribute not in getattr(owner, "__dict__", {}):
                return False
            delattr(owner, attribute)
            return True
        try:
            value = load_object(stored, self._by_path())
        except Exception:  # it holds an object that this run has not, or a class that is made while training
            return False
        if isinstance(value, SameObject):
            value = self.networks.get(value.path)
            if value is None:
                return False
        if path in self.units or path in self.objects:
            now, setter = self.units[path] if path in self.units else self.objects[path]
            return put_value(now, value, setter)
        owner = owner if owner is not None else self._module(owner_path)
        if owner is None or not attribute.isidentifier():
            return False
        setattr(owner, attribute, value.make() if isinstance(value, StoredGenerator) else value)
        return True

    def _module(self, name: str) -> types.ModuleType | None:
        """A module of the target's that this run has not imported yet."""
        if name.partition(".")[0] in {root.partition(".")[0] for root in self.roots}:
            return None
        with contextlib.suppress(ImportError, ValueError):
            return importlib.import_module(name)
        return None
