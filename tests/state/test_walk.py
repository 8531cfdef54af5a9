"""The census finds a value wherever Python can hide it, and a unit can be put back."""

import array
import collections
import ctypes
import datetime
import decimal
import enum
import functools
import io
import itertools
import pickle
import queue
import random
import re
import sys
import threading
import types

import numpy as np
import pytest
import torch

from resumecheck.state.walk import take_census

MODULE_COUNT = {"n": 0}


def counts_in_module_global():
    MODULE_COUNT["n"] += 1


def make_closure():
    count = 0

    def step():
        nonlocal count
        count += 1

    return step


def counts_in_default(seen=[]):  # noqa: B006 (a mutable default is the point)
    seen.append(1)


def counts_in_keyword_default(*, seen={"n": 0}):  # noqa: B006
    seen["n"] += 1


def counts_on_function():
    counts_on_function.n += 1


counts_on_function.n = 0


@functools.lru_cache
def cached(value):
    return value


class CountsInClass:
    total = 0

    def step(self):
        type(self).total += 1


class CountsInSlot:
    __slots__ = ("n",)

    def __init__(self):
        self.n = 0

    def step(self):
        self.n += 1


class Phase(enum.Enum):
    WARM = 1
    HOT = 2


class Holder:
    """Holds one value that `step` changes."""

    def __init__(self, value, step):
        self.value = value
        self.change = step

    def step(self):
        result = self.change(self.value)
        if result is not None:
            self.value = result


def numbers():
    yield from range(100)


def generator_frame():
    for index in range(100):
        held = index * 2
        yield held


def closure_holder():
    return Holder(make_closure(), lambda step: step())


def bound_method_holder():
    return Holder(CountsInSlot().step, lambda step: step())


MECHANISMS = {
    "attribute": lambda: Holder(0, lambda n: n + 1),
    "float": lambda: Holder(0.5, lambda x: x * 0.9),
    "list": lambda: Holder([1], lambda items: items.append(2)),
    "dict": lambda: Holder({"n": 0}, lambda items: items.update(n=items["n"] + 1)),
    "deque": lambda: Holder(collections.deque(maxlen=3), lambda items: items.append(1)),
    "set": lambda: Holder({1}, lambda items: items.add(2)),
    "tensor": lambda: Holder(torch.zeros(3), lambda tensor: tensor.add_(1) and None if False else tensor + 1),
    "array": lambda: Holder(np.zeros(3), lambda array: array + 1),
    "enum": lambda: Holder(Phase.WARM, lambda phase: Phase.HOT),
    "torch generator": lambda: Holder(torch.Generator().manual_seed(1), lambda g: torch.rand(1, generator=g) and None),
    "numpy generator": lambda: Holder(np.random.default_rng(1), lambda g: g.random() and None),
    "numpy random state": lambda: Holder(np.random.RandomState(1), lambda g: g.rand() and None),
    "python random": lambda: Holder(random.Random(1), lambda g: g.random() and None),
    "closure": closure_holder,
    "bound method": bound_method_holder,
    "slot": CountsInSlot,
    "class attribute": CountsInClass,
    "module global": lambda: Holder(counts_in_module_global, lambda f: f()),
    "mutable default": lambda: Holder(counts_in_default, lambda f: f()),
    "keyword default": lambda: Holder(counts_in_keyword_default, lambda f: f()),
    "function attribute": lambda: Holder(counts_on_function, lambda f: f()),
    "lru cache": lambda: Holder(cached, lambda f: f(object()) and None),
    "generator": lambda: Holder(generator_frame(), lambda g: next(g) and None),
    "list iterator": lambda: Holder(iter([1, 2, 3]), lambda i: next(i) and None),
    "itertools count": lambda: Holder(itertools.count(), lambda c: next(c) and None),
    "decimal": lambda: Holder(decimal.Decimal("1.5"), lambda x: x * 2),
    "date": lambda: Holder(datetime.datetime(2020, 1, 1), lambda day: day + datetime.timedelta(days=1)),
    "C integer": lambda: Holder(ctypes.c_int(1), lambda number: setattr(number, "value", number.value + 1)),
    "compact array": lambda: Holder(array.array("d", [0.5]), lambda items: items.append(1)),
    "pattern": lambda: Holder(re.compile("a"), lambda pattern: re.compile(pattern.pattern + "b")),
    "view of memory": lambda: Holder(memoryview(bytearray(2)), lambda view: view.__setitem__(0, view[0] + 1)),
    "mapping proxy": lambda: Holder(types.MappingProxyType({"n": CountsInSlot()}), lambda held: held["n"].step()),
    "zip of generators": lambda: Holder(zip(numbers(), numbers(), strict=True), lambda pairs: next(pairs) and None),
    "map over an iterator": lambda: Holder(map(abs, itertools.count(1)), lambda items: next(items) and None),
    "bound method of a built-in": lambda: Holder(iter([1, 2, 3]).__next__, lambda following: following() and None),
    "text in memory": lambda: Holder(io.StringIO(), lambda tape: tape.write("x") and None),
    "bytes in memory": lambda: Holder(
        io.BytesIO(b"ab"), lambda tape: tape.getbuffer().__setitem__(0, tape.read(1)[0] + 1)
    ),
    "bound of a deque": lambda: Holder(collections.deque([1], maxlen=3), list),
    "partial": lambda: Holder(functools.partial(print, collections.deque()), lambda p: p.args[0].append(1)),
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_change_is_seen_wherever_it_is_held(mechanism):
    holder = MECHANISMS[mechanism]()
    before = dict(take_census({"root": holder}).entries)
    assert before == take_census({"root": holder}).entries, "a census disturbs what it looks at"
    holder.step()
    after = take_census({"root": holder}).entries
    changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    assert changed, f"{mechanism}: no path changed among {list(before)}"


RESTORABLE = [
    "attribute", "list", "dict", "deque", "set", "tensor", "array", "enum", "torch generator", "numpy generator",
    "numpy random state", "python random", "decimal", "date", "C integer", "compact array", "closure", "slot",
    "class attribute", "function attribute", "text in memory",
]  # fmt: skip


@pytest.mark.parametrize("mechanism", RESTORABLE)
def test_a_unit_is_put_back(mechanism, tmp_path):
    holder = MECHANISMS[mechanism]()
    holder.step()
    wanted = take_census({"root": holder})
    wanted.write_values(tmp_path / "values.pkl")
    entries = dict(wanted.entries)
    holder.step()
    holder.step()
    now = take_census({"root": holder})
    units = {
        now.unit_of.get(path, path) for path in {**entries, **now.entries} if entries.get(path) != now.entries.get(path)
    }
    values = pickle.loads((tmp_path / "values.pkl").read_bytes())
    for unit in units:
        assert now.put(unit, values.get(unit))
    assert take_census({"root": holder}).entries == entries


def test_an_attribute_that_is_missing_is_set_and_one_too_many_is_taken_away():
    holder = Holder(0, lambda n: n)
    assert take_census({"root": holder}).put("root.extra", pickle.dumps(7))
    assert holder.extra == 7
    assert take_census({"root": holder}).put("root.extra", None)
    assert not hasattr(holder, "extra")


def test_a_class_default_reads_like_the_attribute_that_replaces_it():
    class Counts(torch.nn.Module):
        calls = 0

    module = Counts()
    before = take_census({"model": module}).entries
    module.calls += 3
    after = take_census({"model": module}).entries
    assert (before["model.calls"], after["model.calls"]) == ("=0", "=3")


def test_a_cycle_ends_and_known_objects_are_left_alone():
    first, second = Holder(None, None), Holder(None, None)
    first.value, second.value = second, first
    weights = torch.zeros(10)
    second.weights = weights
    entries = take_census({"root": first, "__known__": [weights]}).entries
    assert not any("weights" in path for path in entries if path.startswith("root"))


def test_the_output_directory_reads_the_same_in_every_run():
    entries = take_census({"root": Holder("/a/out/cache", None), "__paths__": {"/a/out": "{output_dir}"}}).entries
    assert entries["root.value"] == "='{output_dir}/cache'"


def test_long_sequences_are_named_as_not_walked_to_the_end():
    census = take_census({"root": Holder(list(range(5000)), None)})
    assert "root.value" in census.left_out
    assert census.entries["root.value.len"] == "=5000"


def test_library_internals_are_bounded():
    census = take_census({"root": torch.nn.TransformerEncoderLayer(8, 2)})
    assert len([path for path in census.entries if path.startswith("root")]) < 2000


class Reads(dict):
    """A mapping that counts how often it is asked, as one that loads what it is asked for would."""

    asked = 0

    def __iter__(self):
        self.asked += 1
        return super().__iter__()

    def items(self):
        self.asked += 1
        return super().items()

    def __len__(self):
        self.asked += 1
        return super().__len__()


def test_the_methods_of_a_container_are_not_called():
    mapping = Reads(a=Holder(1, None))
    mapping.extra = 5
    entries = take_census({"root": Holder(mapping, None)}).entries
    assert mapping.asked == 0
    assert entries["root.value.len"] == "=1"
    assert entries["root.value['a'].value"] == "=1"
    assert entries["root.value.extra"] == "=5"


class Vanished:
    @property
    def __class__(self):
        raise ReferenceError("the object is gone")


def test_what_cannot_be_pickled_is_left_out_and_said():
    census = take_census({"root": Holder(iter(queue.SimpleQueue().get, None), None)})
    assert [path for path in census.left_out if path.startswith("root")]


def test_what_cannot_be_read_is_left_out_and_the_rest_is_read():
    holder = Holder(Vanished(), None)
    holder.count = 3
    census = take_census({"root": holder})
    assert census.left_out["root.value"] == "cannot be read (ReferenceError)"
    assert census.entries["root.count"] == "=3"


def test_a_long_chain_of_objects_ends_without_an_error():
    first = last = Holder(0, None)
    for number in range(5_000):
        last.next = Holder(number, None)
        last = last.next
    census = take_census({"root": first})
    assert census.entries["root.next.value"] == "=0"
    assert any("RecursionError" in why for why in census.left_out.values())


def test_mappings_that_load_a_library_when_they_are_read_are_left_alone():
    import sys

    from transformers import MODEL_MAPPING

    before = set(sys.modules)
    entries = take_census({"module globals": Holder(MODEL_MAPPING, None)}).entries
    assert entries
    assert set(sys.modules) == before


class Meter:
    def __init__(self, model):
        self.model, self.mean = model, 0.5


def test_an_object_that_is_missing_is_put_back_with_the_live_model_in_it(tmp_path):
    theirs, mine = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    source = Holder({"first": Meter(theirs)}, None)
    take_census({"model": theirs, "root": source}).write_values(tmp_path / "values.pkl")
    values = pickle.loads((tmp_path / "values.pkl").read_bytes())
    resumed = Holder({}, None)
    assert take_census({"model": mine, "root": resumed}).put("root.value", values["root.value"])
    assert resumed.value["first"].mean == 0.5
    assert resumed.value["first"].model is mine


def test_what_does_not_pickle_is_not_taken_away_instead(tmp_path):
    source = Holder(Meter(threading.Lock()), None)
    take_census({"root": source}).write_values(tmp_path / "values.pkl")
    values = pickle.loads((tmp_path / "values.pkl").read_bytes())
    resumed = Holder(None, None)
    assert not take_census({"root": resumed}).put("root.value", values["root.value"])
    assert hasattr(resumed, "value")


def test_an_attribute_of_an_object_that_has_none_yet_is_put_there():
    local = threading.local()
    assert take_census({"root": Holder(local, None)}).put("root.value.count", pickle.dumps(3))
    assert local.count == 3


def test_globals_of_own_modules_are_seen_wherever_they_are_read(tmp_path, monkeypatch):
    (tmp_path / "kept_elsewhere.py").write_text("count = 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import kept_elsewhere  # ty: ignore[unresolved-import]

    try:
        kept_elsewhere.count += 4
        census = take_census({"root": Holder(0, None)})
        assert census.entries["kept_elsewhere.count"] == "=4"
        assert census.put("kept_elsewhere.count", pickle.dumps(9))
        assert kept_elsewhere.count == 9
        assert not any(path.startswith(("torch.ops", "pytest.")) for path in census.entries)
    finally:
        del sys.modules["kept_elsewhere"]
