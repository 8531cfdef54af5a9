"""Takes a census: every value that training can reach from its objects, by path, whatever holds it.

Attributes, slots, closure cells, defaults, function attributes, class attributes, globals of the target's own modules,
generators and their frames, iterators, private random generators, open files.

Objects of installed libraries are opened three levels deep, long sequences by their ends; `left_out` says where.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import enum
import functools
import io
import itertools
import threading
import types
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from resumecheck.state.census import Census
from resumecheck.state.digest import digest, plain_digest
from resumecheck.state.inside import attributes_of, digest_of_reduction, told_by_reduction
from resumecheck.state.ownership import is_own_module, is_own_type, own_modules
from resumecheck.state.process import process_state
from resumecheck.state.units import (
    ARRAYS,
    GENERATORS,
    LONG_SEQUENCE,
    PLAIN,
    SameObject,
    Setter,
    generator_state,
    is_plain,
    plain_leaves,
    set_item,
)

LIBRARY_DEPTH = 3
MOST_ENTRIES = 50_000
SKIPPED_ATTRIBUTES = frozenset({"_parameters", "_buffers", "_modules", "_resumecheck"})
#: Objects whose inside is large, no state of the run, or read elsewhere.
OPAQUE_TYPES = frozenset(
    {
        "Accelerator", "AcceleratorState", "PartialState", "GradientState", "TrainingArguments", "TrainerState",
        "TrainerMemoryTracker", "Table", "InMemoryTable", "MemoryMappedTable", "ConcatenationTable", "Logger",
        "Console", "tqdm", "tqdm_notebook", "ProgressCallback", "PrinterCallback", "SummaryWriter", "DatasetInfo",
        "Tokenizer", "Encoding", "AddedToken",
    }
)  # fmt: skip

_ITERATORS = (
    *map(type, (iter([]), iter(()), iter(range(0)), iter(range(2**70)), iter({}), iter(""), iter(set()))),
    *(itertools.cycle, itertools.count, itertools.islice, itertools.chain, itertools.repeat),
    *(enumerate, zip, map, filter),
)
_CONTAINERS: tuple[Any, ...] = (collections.OrderedDict, dict, list, tuple, set, frozenset, collections.deque)
_IGNORED = (types.ModuleType, type(threading.Lock()), type(threading.RLock()), weakref.ref, property)


def take_census(roots: Mapping[str, Any]) -> Census:
    """Walk everything reachable from the roots, and what was set for the whole process.

    `__known__` lists objects that are read elsewhere, `__owners__` what roots `OWNER.ATTRIBUTE` are attributes of.
    """
    walk = _Walk(roots.get("__known__", ()), roots.get("__paths__", {}))
    walk.census.owners.update(roots.get("__owners__", {}))
    for name, root in roots.items():
        if not name.startswith("__"):
            walk.census.roots[name] = root
            owner, _, attribute = name.rpartition(".")
            holder = walk.census.owners.get(owner)
            walk.visit(root, name, functools.partial(setattr, holder, attribute) if holder is not None else None, 0)
    for path, value, setter in process_state():
        walk.visit(value, path, setter, 0)
    for name, module in own_modules():  # what a method imports when it is called, or reads as `module.NAME`
        walk.visit_globals(vars(module), name)
    return walk.census


def _plain_text(value: Any) -> str:
    return repr(value) if isinstance(value, np.generic | enum.Enum) else plain_digest(value)


class _Walk:
    def __init__(self, known: Any, paths: Mapping[str, str]) -> None:
        self.census = Census()
        self.seen: dict[int, Any] = {id(item): item for item in known}
        self.first_paths: dict[int, str] = {}
        self.paths = paths
        self.depth = 0
        self.shapes = collections.Counter(
            tuple(item.shape) for item in known if isinstance(item, torch.nn.Parameter) and item.requires_grad
        )

    # --- leaves -------------------------------------------------------------------------------------------------

    def record(self, path: str, text: str, unit: str | None = None) -> None:
        """One entry; paths of this run's output directory read the same in every run."""
        for location, name in self.paths.items():
            text = text.replace(location, name)
        self.census.entries[path] = text
        if self.depth > 0:
            self.census.library.append(path)
        if unit is not None:
            self.census.unit_of[path] = unit

    def leave_out(self, path: str, why: str) -> None:
        """Say what was not walked."""
        self.census.left_out[path] = why

    def visit(self, value: Any, path: str, setter: Setter | None, depth: int) -> None:
        """Visit a value; `depth` counts levels inside libraries. What cannot be read is left out, never an error."""
        try:
            self.visit_value(value, path, setter, depth)
        except Exception as error:  # a proxy whose object is gone, a class that answers isinstance itself, ...
            self.leave_out(path, f"cannot be read ({type(error).__name__})")

    def visit_value(self, value: Any, path: str, setter: Setter | None, depth: int) -> None:
        """What a value is decides how it is read."""
        if len(self.census.entries) >= MOST_ENTRIES:
            self.leave_out(path, f"more than {MOST_ENTRIES} values")
            return
        self.depth = depth
        if isinstance(value, type):
            self.visit_class(value)
            return
        if isinstance(value, _IGNORED):
            return
        if isinstance(value, PLAIN):
            self.record(path, _plain_text(value), path)
            self.census.units[path] = (value, setter)
            return
        if isinstance(value, torch.nn.Module | torch.nn.Parameter):
            self.record_object(value, path, setter)
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if isinstance(value, ARRAYS):
            if isinstance(value, torch.nn.Parameter):
                self.census.tensor_paths[id(value)] = path
            self.unit(value, path, setter)
        elif isinstance(value, GENERATORS):
            self.record(path, f"{type(value).__name__} {digest(generator_state(value))}", path)
            self.census.units[path] = (value, setter)
        elif isinstance(value, list | tuple | dict | set | frozenset | collections.deque):
            self.visit_container(value, path, setter, depth)
            if getattr(value, "__dict__", None):
                self.visit_object(value, path, setter, depth)
        else:
            self.visit_object(value, path, setter, depth)

    def record_object(self, value: Any, path: str, setter: Setter | None) -> None:
        """Note where a module or parameter is found first; a further path to it says that it is the same object."""
        first = self.first_paths.setdefault(id(value), path)
        if first == path:
            self.census.networks[path] = value
        else:
            self.record(path, f"is {first}", path)
            self.census.units[path] = (SameObject(first), setter)

    def unit(self, value: Any, path: str, setter: Setter | None) -> None:
        """A plain value of any size: one unit, with an entry for each leaf where they are few."""
        self.census.units[path] = (value, setter)
        if isinstance(value, Mapping | list | tuple):
            self.look_for_shadow(list(value.values()) if isinstance(value, Mapping) else list(value), path)
        for leaf_path, text in plain_leaves(value, path):
            self.record(leaf_path, text, path)

    def look_for_shadow(self, tensors: list[Any], path: str) -> None:
        """Note a collection of tensors that has most of the shapes of the model's trained parameters."""
        shapes = collections.Counter(tuple(item.shape) for item in tensors if isinstance(item, torch.Tensor))
        total = sum(self.shapes.values())
        if total > 1 and 2 * sum((shapes & self.shapes).values()) > total:
            self.census.shadows.append(path)

    # --- containers and objects -----------------------------------------------------------------------------------

    def visit_container(self, value: Any, path: str, setter: Setter | None, depth: int) -> None:
        """A plain container is one unit; another is opened.

        Read by the methods of the built-in type: those of a subclass may load something, or count how often they are
        called.
        """
        if is_plain(value):
            if len(value) > LONG_SEQUENCE and not isinstance(value, dict | set | frozenset):
                self.leave_out(path, f"the middle of {len(value)} elements")
            self.unit(value, path, setter)
            return
        base = next(kind for kind in _CONTAINERS if isinstance(value, kind))
        self.record(f"{path}.len", f"={base.__len__(value)}")
        self.census.objects[path] = (value, setter)
        if isinstance(value, set | frozenset):
            return
        items = list(base.items(value)) if isinstance(value, dict) else list(enumerate(base.__iter__(value)))
        if len(items) > LONG_SEQUENCE:
            self.leave_out(path, f"the middle of {len(items)} elements")
            items = items[:100] + items[-100:]
        for key, item in items:
            name = repr(key) if isinstance(key, str | int | float | bool) else f"<{type(key).__name__}>"
            put = None if isinstance(value, tuple) else functools.partial(set_item, value, key)
            self.visit(item, f"{path}[{name}]", put, depth)

    def visit_object(self, value: Any, path: str, setter: Setter | None, depth: int) -> None:
        """Functions, generators, iterators, files, modules of the network, and objects with attributes."""
        if isinstance(value, types.FunctionType):
            self.visit_function(value, path, depth)
        elif isinstance(value, types.MethodType):
            self.visit(value.__self__, f"{path}.__self__", None, depth)
            self.visit(value.__func__, path, None, depth)
        elif isinstance(value, functools.partial):
            self.visit(value.func, f"{path}.func", None, depth)
            self.visit(value.args, f"{path}.args", None, depth)
            self.visit(value.keywords, f"{path}.keywords", None, depth)
        elif isinstance(value, types.BuiltinMethodType | types.MethodWrapperType):
            self.visit(value.__self__, f"{path}.__self__", None, depth)
        elif isinstance(value, types.MappingProxyType):
            self.visit(dict(value), path, None, depth)
        elif isinstance(value, memoryview):
            self.visit(value.obj, f"{path}.obj", None, depth)
        elif isinstance(value, staticmethod | classmethod):
            self.visit(value.__func__, path, None, depth)
        elif isinstance(value, functools._lru_cache_wrapper):
            self.record(f"{path}.cache_info", f"={value.cache_info()!r}")
            self.visit(value.__wrapped__, path, None, depth)
        elif isinstance(value, types.GeneratorType):
            frame = value.gi_frame
            self.record(f"{path}.position", f"={frame.f_lasti if frame is not None else 'finished'}")
            for name, local in dict(frame.f_locals).items() if frame is not None else ():
                self.visit(local, f"{path}.<locals>.{name}", None, depth)
        elif isinstance(value, _ITERATORS):
            self.visit_iterator(value, path, setter, depth)
        elif isinstance(value, contextvars.ContextVar):
            with contextlib.suppress(LookupError):
                self.visit(value.get(), f"{path}.get()", value.set, depth)
        elif isinstance(value, io.StringIO | io.BytesIO):
            self.record(path, digest(value.getvalue()), path)
            self.census.units[path] = (value, setter)
            self.record(f"{path}.tell()", f"={value.tell()}", path)
        elif isinstance(value, io.IOBase):
            with contextlib.suppress(OSError, ValueError):
                self.record(f"{path}.tell()", f"={value.tell()}")
        else:
            self.visit_attributes(value, path, setter, depth)

    def visit_iterator(self, value: Any, path: str, setter: Setter | None, depth: int) -> None:
        """The position of an iterator, from its own description of itself."""
        self.census.units[path] = (value, setter)
        if isinstance(value, itertools.count | itertools.repeat):
            self.record(path, f"={value!r}", path)
            return
        try:
            made = value.__reduce__()
        except Exception:
            self.leave_out(path, f"a {type(value).__name__} does not tell its position")
            return
        parts = list(made[1:]) if isinstance(made, tuple) else repr(made)
        if is_plain(parts):
            for leaf_path, text in plain_leaves(parts, f"{path}.position"):
                self.record(leaf_path, text, path)
        else:  # zip, map, filter: of other iterators and functions
            self.visit(parts, f"{path}.position", None, depth)

    def visit_function(self, function: types.FunctionType, path: str, depth: int) -> None:
        """What a function carries: closure cells, defaults, attributes, and the globals of its module if it is own."""
        module = function.__module__ or ""
        if module.startswith("resumecheck.") and not is_own_module(module):
            return
        own = is_own_module(module, function.__globals__)
        self.census.owners[path] = function
        depth = 0 if own else depth + 1
        if depth > LIBRARY_DEPTH:
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):
                self.visit(
                    cell.cell_contents,
                    f"{path}.<closure>.{name}",
                    functools.partial(setattr, cell, "cell_contents"),
                    depth,
                )
        if own:
            positional = function.__code__.co_varnames[: function.__code__.co_argcount]
            defaults = function.__defaults__ or ()
            for name, default in zip(positional[len(positional) - len(defaults) :], defaults, strict=False):
                self.visit(default, f"{path}.<default>.{name}", None, depth)
            for name, default in (function.__kwdefaults__ or {}).items():
                self.visit(
                    default,
                    f"{path}.<default>.{name}",
                    functools.partial(set_item, function.__kwdefaults__, name),
                    depth,
                )
            for name, item in vars(function).items():
                if name != "__wrapped__":
                    self.visit(item, f"{path}.{name}", functools.partial(setattr, function, name), depth)
            self.visit_globals(function.__globals__, module)

    def visit_globals(self, namespace: dict[str, Any], module: str) -> None:
        """The globals of one of the target's own modules, once."""
        if id(namespace) in self.seen:
            return
        self.seen[id(namespace)] = namespace
        for name, item in list(namespace.items()):
            if name.startswith("__") or isinstance(item, types.ModuleType):
                continue
            self.visit(item, f"{module}.{name}", functools.partial(set_item, namespace, name), 0)

    def visit_class(self, cls: type) -> None:
        """Attributes and methods of the target's own classes, once."""
        if id(cls) in self.seen or not is_own_type(cls):
            return
        self.seen[id(cls)] = cls
        for name, item in list(vars(cls).items()):
            if (name.startswith("__") and name != "__init__") or isinstance(
                item, types.MemberDescriptorType | types.GetSetDescriptorType
            ):
                continue
            function = item.fget if isinstance(item, property) else item
            self.visit(function, f"{cls.__qualname__}.{name}", functools.partial(setattr, cls, name), 0)
        for base in cls.__mro__[1:]:
            self.visit_class(base)

    def visit_attributes(self, value: Any, path: str, setter: Setter | None, depth: int) -> None:
        """An object with `__dict__` or `__slots__`, or one that tells its value when it is pickled."""
        cls = type(value)
        if cls.__module__.startswith("resumecheck.") and not is_own_module(cls.__module__):
            return
        if is_own_type(cls):
            depth = 0
            self.visit_class(cls)
        else:
            # A network's modules are the model, not a library's internals, however deep they lie.
            depth += 0 if isinstance(value, torch.nn.Module) else 1
            if cls.__name__ in OPAQUE_TYPES or depth > LIBRARY_DEPTH:
                if cls.__name__ not in OPAQUE_TYPES:
                    self.leave_out(path, f"inside {cls.__module__.split('.')[0]}")
                return
        attributes = attributes_of(value)
        self.census.owners[path] = value
        if not attributes and told_by_reduction(cls):
            self.record(path, digest_of_reduction(value), path)
            self.census.units[path] = (value, setter)
            return
        if depth <= 1:
            self.census.objects[path] = (value, setter)
        for base in cls.__mro__ if is_own_type(cls) else ():
            for name, item in vars(base).items() if is_own_type(base) else ():
                # A class attribute that the instance has not overridden yet is what the instance holds.
                if not name.startswith("__") and isinstance(item, PLAIN) and name not in attributes:
                    self.depth = depth
                    self.record(f"{path}.{name}", _plain_text(item), f"{base.__qualname__}.{name}")
        for name, item in attributes.items():
            if name not in SKIPPED_ATTRIBUTES and not name.startswith("_resumecheck_"):
                self.visit(item, f"{path}.{name}", functools.partial(setattr, value, name), depth)
        if isinstance(value, torch.nn.Module):
            own = [parameter for parameter in value.parameters() if id(parameter) not in self.seen]
            if own and path.count(".") < 4:
                self.look_for_shadow(own, path)
            for kind in ("_parameters", "_buffers", "_modules"):
                for name, item in attributes.get(kind, {}).items():
                    if item is not None:
                        self.visit_hooks(item, f"{path}.{name}", depth)
                        self.visit(item, f"{path}.{name}", functools.partial(setattr, value, name), depth)

    def visit_hooks(self, value: Any, path: str, depth: int) -> None:
        """What hangs on a parameter: hooks of the backward pass, and Python attributes."""
        if isinstance(value, torch.Tensor):
            for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
                hooks = getattr(value, name, None)
                if hooks:
                    self.visit(list(hooks.values()), f"{path}.{name}", None, depth)
            for name, item in vars(value).items():
                self.visit(item, f"{path}.{name}", functools.partial(setattr, value, name), depth)
