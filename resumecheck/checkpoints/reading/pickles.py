"""A pickle read without being carried out: its opcodes build plain data, and every call stays a `Call` on paper.

`pickletools.genops` splits the bytes into opcodes and never imports or calls what they name. What a pickle would call
is then data to be judged: `code_in` names what only a hostile file needs.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
import re
import struct
import sys
from typing import Any

from resumecheck.checkpoints.reading.files import Unreadable

MOST_OPCODES = 3_000_000


@dataclasses.dataclass(frozen=True)
class Global:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(eq=False)
class Call:
    """A call that was not made: of what, with which arguments, and what would have been set on its result."""

    target: Any
    arguments: Any
    state: Any = None
    items: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def is_of(self, *names: str) -> bool:
        """Whether it calls one of these globals."""
        return isinstance(self.target, Global) and str(self.target) in names


@dataclasses.dataclass(eq=False)
class Persistent:
    """An object that lies outside the pickle, as torch's storages do."""

    id: Any


@dataclasses.dataclass(frozen=True)
class Pickle:
    """What a pickle says: its value, every global it names, those it would call, and where it ends."""

    value: Any
    globals: tuple[Global, ...]
    called: tuple[Global, ...]
    persistent: tuple[Any, ...]
    end: int


#: Globals that stand for plain data. `torch.load(weights_only=True)` takes these and calls nothing else.
PLAIN = re.compile(
    r"collections\.(OrderedDict|Counter|defaultdict|deque)"
    r"|(builtins|__builtin__)\.(set|frozenset|int|float|complex|bool|list|dict|tuple|str|bytes|slice)"
    r"|_codecs\.encode|copyreg\._reconstructor|builtins\.object|datetime\.(datetime|timedelta|date)"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.(\w+Storage|Size|device|Tensor)"
    r"|torch\.storage\.\w+Storage|torch\.serialization\._get_layout|torch\.nn\.parameter\.Parameter"
    r"|torch\.(float|double|half|bfloat|int|long|short|u?int\d+|float\d+|float8_\w+|bfloat16|bool|uint8|complex\d+)"
    r"|numpy(\._?core)?\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
    r"|numpy\.(ndarray|dtype|bool_?|u?int\d+|float\d+)|numpy\.dtypes\.\w+DType"
    r"|numpy\.random\.\w*(_pickle\.__\w+_ctor|MT19937|PCG64)"
)
#: Classes of the standard library that are values too, though weights_only refuses them.
_HARMLESS = re.compile(
    r"(pathlib\.\w*(Path|Windows|Posix)\w*|argparse\.Namespace|enum\.\w+|types\.SimpleNamespace|decimal\.Decimal"
    r"|fractions\.Fraction|uuid\.UUID|datetime\.\w+|random\.Random|functools\.partial)"
)
_STANDARD = frozenset(sys.stdlib_module_names) | {"__builtin__", "nt", "posix", "commands", "exceptions", "copy_reg"}
_STATES = {"_reconstructor", "__newobj__", "__newobj_ex__"}


def code_in(found: Pickle) -> list[str]:
    """What loading the pickle would call or fetch that no data needs: functions, and the standard library's tools."""
    suspect = [each for each in found.globals if not _is_data(each)]
    suspect += [each for each in found.called if _is_data(each) and not _known(each) and not _looks_like_class(each)]
    return list(dict.fromkeys(map(str, suspect)))


def objects_in(found: Pickle) -> list[str]:
    """The classes that are no plain data: `weights_only` refuses them, and unpickling imports their modules."""
    return list(dict.fromkeys(str(each) for each in found.globals if not PLAIN.fullmatch(str(each))))


def _known(name: Global) -> bool:
    return bool(PLAIN.fullmatch(str(name)) or _HARMLESS.fullmatch(str(name)))


def _is_data(name: Global) -> bool:
    return _known(name) or name.module.partition(".")[0] not in _STANDARD


def _looks_like_class(name: Global) -> bool:
    last = name.name.rpartition(".")[2].lstrip("_")
    return last[:1].isupper() or name.name in _STATES


def read_pickle(content: bytes, start: int = 0) -> Pickle:
    """Follow the pickle that starts there, to its STOP. Raises `Unreadable`."""
    stream = io.BytesIO(content)
    stream.seek(start)
    machine = _Machine()
    try:
        for count, (opcode, argument, _position) in enumerate(pickletools.genops(stream)):
            if count > MOST_OPCODES:
                raise Unreadable(f"is a pickle of more than {MOST_OPCODES} operations, which is more than is read")
            machine.step(opcode.name, argument)
        value = machine.stack.pop()
    except RecursionError as error:
        raise Unreadable("is nested too deep to be read") from error
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
        EOFError,
        AttributeError,
        struct.error,
    ) as error:
        raise Unreadable(f"is a torn or malformed pickle ({str(error)[:100] or type(error).__name__})") from error
    return Pickle(value, tuple(machine.globals), tuple(machine.called), tuple(machine.persistent), stream.tell())


class _Machine:
    """The stack machine of a pickle that writes down what it is told to call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[Global, None] = {}
        self.called: dict[Global, None] = {}
        self.persistent: list[Any] = []

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _PUSH_ARGUMENT:
            stack.append(argument)
        elif name in _PUSH_CONSTANT:
            stack.append(_PUSH_CONSTANT[name]())
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(stack) < count:
                raise IndexError("too few values for a tuple")
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            if stack:
                stack.pop()
            else:
                self._to_mark()
        elif name in (
            "POP_MARK",
            "TUPLE",
            "LIST",
            "DICT",
            "FROZENSET",
            "APPENDS",
            "SETITEMS",
            "ADDITEMS",
            "OBJ",
            "INST",
        ):
            self._with_marked(name, argument, self._to_mark())
        elif name == "APPEND":
            value = stack.pop()
            _extend(stack[-1], [value])
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "GLOBAL":
                module, _, attribute = argument.partition(" ")
            else:
                attribute, module = stack.pop(), stack.pop()
            stack.append(self._global(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, target = stack.pop(), stack.pop()
            stack.append(self._call(target, arguments))
        elif name == "NEWOBJ_EX":
            keywords, arguments, target = stack.pop(), stack.pop(), stack.pop()
            stack.append(self._call(target, (arguments, keywords)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Call):
                stack[-1].state = state
        elif name in ("PERSID", "BINPERSID"):
            identity = argument if name == "PERSID" else stack.pop()
            self.persistent.append(identity)
            stack.append(Persistent(identity))
        elif name in ("EXT1", "EXT2", "EXT4"):
            stack.append(self._global("copyreg", f"extension {argument}"))
        elif name not in ("PROTO", "FRAME", "STOP", "READONLY_BUFFER"):
            raise ValueError(f"opcode {name}")

    def _to_mark(self) -> list[Any]:
        marked, self.stack = self.stack, self.marks.pop()
        return marked

    def _with_marked(self, name: str, argument: Any, marked: list[Any]) -> None:
        if name == "TUPLE":
            self.stack.append(tuple(marked))
        elif name in ("LIST", "FROZENSET"):
            self.stack.append(marked)
        elif name == "DICT":
            self.stack.append({})
            _set_items(self.stack[-1], marked)
        elif name in ("APPENDS", "ADDITEMS"):
            _extend(self.stack[-1], marked)
        elif name == "SETITEMS":
            _set_items(self.stack[-1], marked)
        elif name == "OBJ":
            self.stack.append(self._call(marked[0], tuple(marked[1:])))
        elif name == "INST":
            module, _, attribute = argument.partition(" ")
            self.stack.append(self._call(self._global(module, attribute), tuple(marked)))

    def _global(self, module: Any, attribute: Any) -> Global:
        found = Global(str(module)[:200], str(attribute)[:200]) if type(module) is type(attribute) is str else None
        if found is None:
            found = Global("builtins", "a name that is computed")
        self.globals[found] = None
        return found

    def _call(self, target: Any, arguments: Any) -> Any:
        if isinstance(target, Global):
            self.called[target] = None
            if str(target) == "collections.OrderedDict" and arguments == ():
                return {}
        return Call(target, arguments)


def _extend(container: Any, values: list[Any]) -> None:
    if isinstance(container, list):
        container.extend(values)
    elif not isinstance(container, Call):
        raise TypeError("values for something that is no list")


def _set_items(container: Any, pairs: list[Any]) -> None:
    if len(pairs) % 2:
        raise ValueError("a key without a value")
    if isinstance(container, Call):
        container = container.items
    if not isinstance(container, dict):
        raise TypeError("items for something that is no mapping")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        # Keys that a file could choose to have the same hash, or to be nested without end, are told apart by identity.
        plain = key is None or isinstance(key, str | bytes | bool | Global | Call | Persistent)
        small = isinstance(key, int) and abs(key) < 2**60
        container[key if plain or small else Call(None, key)] = value


_PUSH_ARGUMENT = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ]
)
_PUSH_CONSTANT: dict[str, Any] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "NEXT_BUFFER": lambda: None,
}
