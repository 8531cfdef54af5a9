"""A leaf as a short text that is equal exactly when dtype, shape and bits are equal.

A tensor is `float32[2,3]#<xxh3-128 of its bytes>`; a tensor of one element and a plain value carry the value itself:
`float32[]=4.0`, `=5`, `='linear'`. So a difference can be shown without having kept the tensor.

In a process that uses a GPU every tensor is `float32[2,3]#words:<hash_words of it>`, wherever it lies: the hash is then
computed on the device, and a tensor that was moved to the CPU has the same digest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xxhash

from resumecheck.state.device_digest import Transfer, hash_words, on_device, single_value, single_words


def digest(value: Any) -> str:
    """The digest of a leaf or of a nested structure of leaves."""
    found: dict[str, str] = {}
    transfer = Transfer()
    digest_into(found, "", value, transfer)
    transfer.fetch()
    return found[""]


def digest_into(found: dict[str, str], name: str, value: Any, transfer: Transfer) -> None:
    """Put the digest of a leaf or nested structure into `found[name]`, at the latest when the transfer is fetched."""
    found[name] = ""  # The order of names is that of the calls, whenever the digests come.
    if isinstance(value, torch.Tensor):
        _tensor_into(found, name, value, transfer)
    elif isinstance(value, np.ndarray):
        found[name] = array_digest(value)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        found[name] = plain_digest(value)
    elif isinstance(value, np.generic):
        found[name] = f"{value.dtype}={value.item()!r}"
    elif (
        isinstance(value, list | tuple)
        and len(value) <= 8
        and all(isinstance(item, bool | int | float) for item in value)
    ):
        found[name] = plain_digest(value)
    else:
        _nested_into(found, name, value, transfer)


def _nested_into(found: dict[str, str], name: str, value: Any, transfer: Transfer) -> None:
    inside: list[tuple[str, dict[str, str]]] = []
    for path, leaf in _open(value):
        inside.append((path, {"": leaf} if isinstance(leaf, _Digest) else {}))
        if not isinstance(leaf, _Digest):
            digest_into(inside[-1][1], "", leaf, transfer)

    def combine() -> None:
        hasher = xxhash.xxh3_128()
        for path, leaf in inside:
            hasher.update(f"{path}\0{leaf['']}\0".encode())
        found[name] = f"{type(value).__name__}#{hasher.hexdigest()}"

    if any(not leaf[""] for _, leaf in inside):
        transfer.after(combine)
    else:
        combine()


def together(digests: Mapping[str, str]) -> str:
    """One digest of many, by name, whatever their order."""
    text = "\0".join(f"{name}\0{digests[name]}" for name in sorted(digests))
    return f"{len(digests)} values#{xxhash.xxh3_128_hexdigest(text.encode())}"


def plain_digest(value: Any) -> str:
    """`=` and the exact value; long text is hashed."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"={value}"
    text = repr(value)
    return f"={text}" if len(text) <= 200 else f"{type(value).__name__}#{xxhash.xxh3_128_hexdigest(text.encode())}"


def tensor_digest(tensor: torch.Tensor) -> str:
    """The digest of a tensor of any kind; a DTensor by its local shard, a sparse one by indices and values."""
    return digest(tensor)


def _tensor_into(found: dict[str, str], name: str, tensor: torch.Tensor, transfer: Transfer) -> None:
    tensor = tensor.detach()
    local = getattr(tensor, "to_local", None)
    if callable(local):
        tensor = local()
    if tensor.layout is not torch.strided:
        dense = tensor.coalesce() if tensor.layout is torch.sparse_coo else tensor
        parts = (dense.indices(), dense.values()) if tensor.layout is torch.sparse_coo else (dense.to_dense(),)
        found[name] = f"{tensor.layout}:" + ":".join(tensor_digest(part) for part in parts)
        return
    if tensor.is_quantized:
        found[name] = f"quantized:{tensor.q_scale()}:{tensor_digest(tensor.int_repr())}"
        return
    kind = f"{str(tensor.dtype).removeprefix('torch.')}[{','.join(map(str, tensor.shape))}]"
    if tensor.is_meta:
        found[name] = f"{kind}#meta"
    elif tensor.numel() == 1 and not on_device(tensor):
        found[name] = f"{kind}={tensor.item()!r}"
    elif tensor.numel() == 1:

        def put_value(words: tuple[int, int]) -> None:
            found[name] = f"{kind}={single_value(words, tensor.dtype)!r}"

        transfer.add(single_words(tensor), put_value)
    elif hashes_words(tensor):

        def put_hash(words: tuple[int, int]) -> None:
            found[name] = f"{kind}#words:" + "".join(f"{word % 2**64:016x}" for word in words)

        transfer.add(hash_words(tensor), put_hash)
    else:
        found[name] = f"{kind}#{xxhash.xxh3_128_hexdigest(raw_bytes(tensor))}"


def hashes_words(tensor: torch.Tensor) -> bool:
    """Whether a tensor is hashed by `hash_words`: on a GPU, and on the CPU of a process that uses a GPU."""
    return on_device(tensor) or (torch.cuda.is_available() and torch.cuda.is_initialized())


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


def flatten(value: Any) -> Iterator[tuple[str, str]]:
    """The digests of the leaves of nested mappings, sequences, sets and plain objects, with their paths.

    Objects of other kinds are opened through their `__dict__`, at most eight levels deep; what cannot be opened is
    named by its type, so that it never differs by its address.
    """
    for path, leaf in _open(value):
        yield path, leaf if isinstance(leaf, _Digest) else digest(leaf)


class _Digest(str):
    """A text that is a digest already."""


def _open(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The leaves themselves, or `_Digest` where there is none."""
    if depth > 8:
        yield path, _Digest(f"<{type(value).__name__}>")
    elif isinstance(value, Mapping):
        for key in value:
            yield from _open(value[key], f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        yield f"{path}.len", len(value)
        for index, item in enumerate(value):
            yield from _open(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, set | frozenset):
        for text in sorted(digest(item) for item in value):
            yield f"{path}{{}}", _Digest(text)
    elif value is None or isinstance(
        value, bool | int | float | complex | str | bytes | np.generic | np.ndarray | torch.Tensor
    ):
        yield path, value
    elif hasattr(value, "__dict__"):
        for key, item in sorted(vars(value).items()):
            yield from _open(item, f"{path}.{key}", depth + 1)
    else:
        yield path, _Digest(f"<{type(value).__name__}>")
