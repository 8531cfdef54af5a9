"""A leaf as a short text that is equal exactly when dtype, shape and bits are equal.

A tensor is `float32[2,3]#<xxh3-128 of its bytes>`; a tensor of one element and a plain value carry the value itself:
`float32[]=4.0`, `=5`, `='linear'`. So a difference can be shown without having kept the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xxhash


def digest(value: Any) -> str:
    """The digest of a leaf or of a nested structure of leaves."""
    if isinstance(value, torch.Tensor):
        return tensor_digest(value)
    if isinstance(value, np.ndarray):
        return array_digest(value)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return plain_digest(value)
    if isinstance(value, np.generic):
        return f"{value.dtype}={value.item()!r}"
    if (
        isinstance(value, list | tuple)
        and len(value) <= 8
        and all(isinstance(item, bool | int | float) for item in value)
    ):
        return plain_digest(value)
    hasher = xxhash.xxh3_128()
    for path, leaf in flatten(value):
        hasher.update(f"{path}\0{leaf if isinstance(leaf, str) else digest(leaf)}\0".encode())
    return f"{type(value).__name__}#{hasher.hexdigest()}"


def together(digests: Mapping[str, str]) -> str:
    """One digest of many, by name."""
    text = "\0".join(f"{name}\0{value}" for name, value in digests.items())
    return f"{len(digests)} values#{xxhash.xxh3_128_hexdigest(text.encode())}"


def plain_digest(value: Any) -> str:
    """`=` and the exact value; long text is hashed."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"={value}"
    text = repr(value)
    return f"={text}" if len(text) <= 200 else f"{type(value).__name__}#{xxhash.xxh3_128_hexdigest(text.encode())}"


def tensor_digest(tensor: torch.Tensor) -> str:
    """The digest of a tensor of any kind; a DTensor by its local shard, a sparse one by indices and values."""
    tensor = tensor.detach()
    local = getattr(tensor, "to_local", None)
    if callable(local):
        tensor = local()
    if tensor.layout is not torch.strided:
        dense = tensor.coalesce() if tensor.layout is torch.sparse_coo else tensor
        parts = (dense.indices(), dense.values()) if tensor.layout is torch.sparse_coo else (dense.to_dense(),)
        return f"{tensor.layout}:" + ":".join(tensor_digest(part) for part in parts)
    if tensor.is_quantized:
        return f"quantized:{tensor.q_scale()}:{tensor_digest(tensor.int_repr())}"
    name = f"{str(tensor.dtype).removeprefix('torch.')}[{','.join(map(str, tensor.shape))}]"
    if tensor.is_meta:
        return f"{name}#meta"
    if tensor.numel() == 1:
        return f"{name}={tensor.item()!r}"
    return f"{name}#{xxhash.xxh3_128_hexdigest(raw_bytes(tensor))}"


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a strided tensor, copied only where it is not contiguous or not on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def array_digest(array: np.ndarray) -> str:
    """The digest of a NumPy array; arrays of objects by the digests of their elements."""
    name = f"{array.dtype}[{','.join(map(str, array.shape))}]"
    if array.dtype.hasobject:
        return f"{name}#{xxhash.xxh3_128_hexdigest(chr(0).join(digest(item) for item in array.ravel()).encode())}"
    return f"{name}#{xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).tobytes())}"


def flatten(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, sequences, sets and plain objects, with their paths.

    Objects of other kinds are opened through their `__dict__`, at most eight levels deep; what cannot be opened is
    named by its type, so that it never differs by its address.
    """
    if depth > 8:
        yield path, f"<{type(value).__name__}>"
    elif isinstance(value, Mapping):
        for key in value:
            yield from flatten(value[key], f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        yield f"{path}.len", len(value)
        for index, item in enumerate(value):
            yield from flatten(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, set | frozenset):
        for text in sorted(digest(item) for item in value):
            yield f"{path}{{}}", text
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic | np.ndarray):
        yield path, digest(value)
    elif isinstance(value, torch.Tensor):
        yield path, tensor_digest(value)
    elif hasattr(value, "__dict__"):
        for key, item in sorted(vars(value).items()):
            yield from flatten(item, f"{path}.{key}", depth + 1)
    else:
        yield path, f"<{type(value).__name__}>"
