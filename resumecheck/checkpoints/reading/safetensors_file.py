"""The header of a safetensors file: 8 bytes of length, JSON, then the tensors without a gap.

Source: the format as the safetensors project documents it (README.md there, section "Format").
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from resumecheck.checkpoints.reading.files import Unreadable, open_regular, size_of
from resumecheck.checkpoints.reading.json_file import MOST_BYTES, parse_object

#: Data type -> bits of one element.
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (data type, shape) of every tensor, checked against the size of the file. Raises `Unreadable`."""
    with open_regular(path) as stream:
        size = size_of(stream)
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise Unreadable(f"is cut off: its header wants {length} bytes, the file has {size}")
        if length > MOST_BYTES:
            raise Unreadable(f"has a header of {length} bytes, which is more than is read of such a file")
        header = parse_object(stream.read(length))
    header.pop("__metadata__", None)
    spans = sorted(_span(name, facts) for name, facts in header.items())
    end = 0
    for start, stop, name in spans:
        if start != end:
            raise Unreadable(f"has a gap or an overlap before tensor {name[:80]!r}")
        end = stop
    if 8 + length + end != size:
        short = 8 + length + end - size
        raise Unreadable(f"is cut off: {short} bytes are missing" if short > 0 else f"has {-short} bytes too many")
    return {name: (facts["dtype"], tuple(facts["shape"])) for name, facts in header.items()}


def _span(name: str, facts: Any) -> tuple[int, int, str]:
    try:
        start, stop = facts["data_offsets"]
        shape = facts["shape"]
        numbers = [start, stop, *shape]
        if len(shape) > 64 or any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
            raise ValueError
        bits = BITS.get(facts["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"describes tensor {name[:80]!r} in a way that makes no sense") from error
    if stop < start or (bits is not None and (stop - start) * 8 != bits * math.prod(shape)):
        raise Unreadable(f"says of tensor {name[:80]!r} that it has {stop - start} bytes, which is not its size")
    return start, stop, name
