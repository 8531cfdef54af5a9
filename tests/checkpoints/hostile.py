"""Files that were made to harm whoever reads them, and objects of classes that are not installed."""

import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path


class MakesADirectory:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def named_class(module, name):
    """A class that a pickle names `module.name`; the module exists until the test process ends."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:count]), types.ModuleType(".".join(parts[:count])))
    made = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, made)
    return made


def torch_zip(path, content, folder="archive", method=zipfile.ZIP_STORED):
    """A zip as torch.save writes it, with this pickle."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{folder}/data.pkl", content)


def zip_bomb(path):
    """A quarter of a gigabyte of zeros in a small file."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("archive/data.pkl", "w") as member,
    ):
        for _ in range(256):
            member.write(bytes(1 << 20))


def many_members(path, count=3_000_000):
    """An end record that promises a table of contents of the whole file, which is large and sparse."""
    size = 1 << 36
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFF0, 0, 0))


def huge_bytes(path):
    """A pickle that says it holds an exabyte."""
    torch_zip(path, b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.")


def nested_pickle(path):
    """Tuples in tuples, a hundred thousand deep, used as the key of a mapping."""
    torch_zip(path, b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns.")


def colliding_keys(path):
    """Many whole numbers with one hash: filling a dictionary with them would take hours."""
    modulus = (1 << 61) - 1
    keys = b"".join(
        b"\x8a" + bytes([len(raw)]) + raw + b"N"
        for number in range(1, 100_000)
        for raw in [(number * modulus).to_bytes(12, "little", signed=True)]
    )
    torch_zip(path, b"\x80\x02}(" + keys + b"u.")


def doubling_pickle(path):
    """Lists of themselves: 2**200 elements on paper."""
    torch_zip(path, b"\x80\x02]q\x00" + b"(h\x00h\x00eq\x00" * 200 + b".")


def pickle_with_code(path, target):
    """A torch file whose loading makes a directory."""
    torch_zip(path, pickle.dumps({"state": MakesADirectory(target)}, protocol=2))


def bare_pickle_with_code(path, target):
    """The same without the zip."""
    path.write_bytes(pickle.dumps(MakesADirectory(target)))


def absurd_header(path: Path):
    """A safetensors file with a header of 2**60 bytes."""
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def sparse_header(path: Path):
    """A header of 32 gigabytes that is really there, in a sparse file."""
    path.write_bytes(struct.pack("<Q", 1 << 35))
    with path.open("r+b") as file:
        file.truncate((1 << 35) + 8)


def nested_json(path: Path):
    """Brackets a hundred thousand deep."""
    path.write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")


def wide_json(path: Path):
    """Ten million empty lists."""
    path.write_text('{"a":[' + "[]," * 10_000_000 + "[]]}")


def pipe(path: Path):
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def link_to_itself(path: Path):
    """A link that leads nowhere."""
    path.symlink_to(path.name)


def endless_device(path: Path):
    """A link to a device without end."""
    path.symlink_to("/dev/zero")


def empty(path: Path):
    """Nothing."""
    path.write_bytes(b"")
