"""What a census found: every value that training can reach, by path, and how to put one in the place of another.

Two censuses taken at the same moment of two runs show by path what no checkpoint holds: `model.calls: expected 5, got
0`. `Census.entries` is for comparing, `Census.units` is for putting a value of one run into another.
`walk.py` takes it.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

from resumecheck.state.process import VARIABLE, set_variable
from resumecheck.state.units import SameObject, Setter, StoredGenerator, portable, put_value


class Census:
    """Values by path.

    Attributes:
        entries: path -> digest of a leaf.
        units: path -> (live value, setter): what can be taken out of one run and put into another as a whole.
        unit_of: path of an entry -> path of the unit that holds it.
        tensor_paths: id of a parameter outside the model -> its path.
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
            "shadows": self.shadows,
            "library": self.library,
            "left_out": self.left_out,
        }
        path.write_text(json.dumps(facts), encoding="utf-8")

    def write_values(self, path: Path) -> None:
        """Store every unit that pickles."""
        values: dict[str, bytes] = {}
        for name, (value, _) in self.units.items():
            with contextlib.suppress(Exception):
                values[name] = pickle.dumps(portable(value))
        path.write_bytes(pickle.dumps(values))

    def put(self, path: str, stored: bytes | None) -> bool:
        """Put a stored unit in place, or take away what the other run does not have; False where that is impossible."""
        owner_path, _, attribute = path.rpartition(".")
        if path.startswith(VARIABLE):
            set_variable(path.removeprefix(VARIABLE), pickle.loads(stored) if stored is not None else None)
            return True
        owner = self.owners.get(owner_path)
        if stored is None:
            if owner is None or attribute not in getattr(owner, "__dict__", {}):
                return False
            delattr(owner, attribute)
            return True
        value = pickle.loads(stored)
        if isinstance(value, SameObject):
            value = self.networks.get(value.path)
            if value is None:
                return False
        if path in self.units:
            now, setter = self.units[path]
            return put_value(now, value, setter)
        if owner is None or not attribute.isidentifier():
            return False
        setattr(owner, attribute, value.make() if isinstance(value, StoredGenerator) else value)
        return True
