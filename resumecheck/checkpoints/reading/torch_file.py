"""What `torch.save` writes: a zip of a pickle and the raw storages, or (before torch 1.6) pickles with storages behind.

Sizes are checked against what the pickle says of each storage. Tensors are not read, except single numbers asked for.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

from resumecheck.checkpoints.reading.files import Unreadable, open_regular, size_of
from resumecheck.checkpoints.reading.pickles import Call, Global, Persistent, Pickle, read_pickle

MOST_PICKLE_BYTES = 64 << 20
#: Bytes of the table of contents of a zip: enough for some 200,000 storages.
MOST_TABLE_BYTES = 16 << 20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

#: Storage class -> bytes and struct code of one element.
ELEMENTS: dict[str, tuple[int, str]] = {
    "DoubleStorage": (8, "d"),
    "FloatStorage": (4, "f"),
    "HalfStorage": (2, "e"),
    "BFloat16Storage": (2, ""),
    "LongStorage": (8, "q"),
    "IntStorage": (4, "i"),
    "ShortStorage": (2, "h"),
    "CharStorage": (1, "b"),
    "ByteStorage": (1, "B"),
    "BoolStorage": (1, "?"),
    "UntypedStorage": (1, "B"),
}


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """The pickle of a torch file, and the numbers of its one-element storages by key."""

    pickle: Pickle
    single: dict[str, float | int]

    @property
    def value(self) -> Any:
        """What was saved, with every call left as a `Call`."""
        return self.pickle.value

    def number(self, value: Any) -> float | int | None:
        """A plain number, or a tensor of one element as its number; None for anything else."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        storage = _storage(value)
        return self.single.get(storage[0]) if storage is not None else None


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of a tensor that was saved, None for anything else."""
    call = _tensor(value)
    shape = call.arguments[2] if call is not None and len(call.arguments) > 3 else None
    sensible = isinstance(shape, tuple) and len(shape) <= 64
    return shape if sensible and all(type(size) is int and 0 <= size < 2**60 for size in shape) else None


def read_torch_file(path: Path) -> TorchFile:
    """The content of a torch file, checked for being whole. Raises `Unreadable`."""
    with open_regular(path) as stream:
        start = stream.read(4)
        stream.seek(0)
        if start[:2] == b"PK":
            return _zip(stream)
        if start[:1] in (b"\x80", b"(", b"c", b"]", b"}"):
            return _legacy(stream)
    raise Unreadable("is neither a zip nor a pickle: it is no file of torch, or its beginning is damaged")


class _Bounded:
    """A stream for `zipfile`, which would read a table of contents of any size that the file asks for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size if 0 <= size <= MOST_TABLE_BYTES else MOST_TABLE_BYTES + 1)
        if len(content) > MOST_TABLE_BYTES:
            raise Unreadable(f"is a zip that wants more than {MOST_TABLE_BYTES} bytes at once, which is not read")
        return content


def _zip(stream: IO[bytes]) -> TorchFile:
    size = size_of(stream)
    try:
        archive = zipfile.ZipFile(_Bounded(stream))  # ty: ignore[no-matching-overload]
        members = {info.filename: info for info in archive.infolist()}
        name = next((name for name in members if name == "data.pkl" or name.endswith("/data.pkl")), None)
        if name is None:
            raise Unreadable("is a zip without data.pkl: it is no file of torch, or it was not finished")
        if members[name].file_size > MOST_PICKLE_BYTES:
            raise Unreadable(f"holds a pickle of {members[name].file_size} bytes, which is more than is read")
        pickle = read_pickle(_member(archive, members[name], MOST_PICKLE_BYTES))
        folder = name.removesuffix("data.pkl")
        little = _byte_order(archive, members.get(f"{folder}byteorder"))
        single: dict[str, float | int] = {}
        for key, code, count in _storages(pickle):
            info = members.get(f"{folder}data/{key}")
            if info is None:
                raise Unreadable(f"lacks the storage {key[:40]!r} that its pickle names")
            if info.compress_type != zipfile.ZIP_STORED:
                raise Unreadable("is a compressed zip, which torch never writes")
            if info.header_offset + info.file_size > size:
                raise Unreadable(f"is cut off: storage {key[:40]!r} ends behind the end of the file")
            width, kind = ELEMENTS.get(code, (0, ""))
            if width and info.file_size != width * count:
                raise Unreadable(f"says of storage {key[:40]!r} that it has {count} elements, it has another size")
            if count == 1 and kind:
                (single[key],) = struct.unpack(("<" if little else ">") + kind, _member(archive, info, width))
    except zipfile.BadZipFile as error:
        if "not a zip file" in str(error):
            raise Unreadable("is cut off: the table of contents at the end of the zip is missing") from error
        raise Unreadable(f"is a torn zip ({str(error)[:100]})") from error
    except (zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise Unreadable(f"is a torn zip ({str(error)[:100]})") from error
    except (struct.error, OverflowError, IndexError, KeyError) as error:
        raise Unreadable("is a torn zip (its records make no sense)") from error
    return TorchFile(pickle, single)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.compress_type != zipfile.ZIP_STORED:
        raise Unreadable("is a compressed zip, which torch never writes")
    with archive.open(info) as member:
        content = member.read(limit + 1)
    if len(content) != info.file_size or len(content) > limit:
        raise Unreadable(f"is cut off inside {info.filename[:80]!r}")
    return content


def _byte_order(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> bool:
    return info is None or _member(archive, info, 16) != b"big"


def _legacy(stream: IO[bytes]) -> TorchFile:
    content = stream.read(MOST_PICKLE_BYTES)
    first = read_pickle(content)
    if first.value != _LEGACY_MAGIC:
        return TorchFile(first, {})
    position = first.end
    for _header in range(2):
        position = read_pickle(content, position).end
    pickle = read_pickle(content, position)
    keys = read_pickle(content, pickle.end)
    wanted = sum(8 + ELEMENTS.get(code, (0, ""))[0] * count for _key, code, count in _storages(pickle))
    if keys.end + wanted > size_of(stream):
        raise Unreadable(f"is cut off: {keys.end + wanted - size_of(stream)} bytes are missing")
    return TorchFile(pickle, {})


def _storages(pickle: Pickle) -> list[tuple[str, str, int]]:
    """(key, storage class, number of elements) of each storage, once."""
    found: dict[str, tuple[str, str, int]] = {}
    for identity in pickle.persistent:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise Unreadable("names something outside the file that is no storage of torch")
        _, kind, key, _location, count = identity[:5]
        if not isinstance(kind, Global) or not isinstance(key, str) or type(count) is not int or not 0 <= count < 2**60:
            raise Unreadable("describes a storage in a way that makes no sense")
        found[key] = (key, kind.name, count)
    return list(found.values())


def _tensor(value: Any, depth: int = 0) -> Call | None:
    if not isinstance(value, Call) or not isinstance(value.arguments, tuple) or not value.arguments or depth > 3:
        return None
    if value.is_of("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return _tensor(value.arguments[0], depth + 1)
    return value if value.is_of("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3") else None


def _storage(value: Any) -> tuple[str] | None:
    call = _tensor(value)
    if call is None or not isinstance(call.arguments[0], Persistent) or math.prod(shape_of(value) or ()) != 1:
        return None
    identity = call.arguments[0].id
    return (
        (identity[2],) if isinstance(identity, tuple) and len(identity) > 2 and isinstance(identity[2], str) else None
    )
