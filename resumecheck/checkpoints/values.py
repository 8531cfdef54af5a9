"""The values in a checkpoint by component, quantity and name, so that two checkpoints can be compared one by one.

A file is first read as the doctor reads it, and only then by torch with `weights_only`, mapped and not copied. What
cannot be read so is one value: the digest of its bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import safe_open

from resumecheck.checkpoints.doctor import agreed_step, find_layout, find_piece, open_checkpoint, read_file
from resumecheck.checkpoints.layouts import lightning, transformers_trainer
from resumecheck.checkpoints.layouts.layout import Contents, Format, Layout, Piece
from resumecheck.checkpoints.reading.files import Unreadable, open_regular

#: component, quantity, name
Key = tuple[str, str, str]

_STREAMS = {
    **dict.fromkeys(("python", "random_state"), "rng-python"),
    **dict.fromkeys(("numpy", "numpy_random_seed"), "rng-numpy"),
    **dict.fromkeys(("cpu", "torch_manual_seed"), "rng-torch"),
    **dict.fromkeys(("cuda", "torch_cuda_manual_seed"), "rng-cuda"),
}
_OF_LIGHTNING = {"state_dict": "weights", "lr_schedulers": "lr-scheduler", "callbacks": "callbacks"}
_BUFFER = re.compile(r".*(running_mean|running_var|num_batches_tracked|position_ids|token_type_ids|inv_freq)")
#: What differs between any two runs and that no step reads: where it was written, and how long things took.
_TOLD = re.compile(
    r".*(log_history|best_model_checkpoint|_runtime|_per_second|output_dir|logging_dir|run_name|hostname).*"
)
#: Classes that scripts put beside their state, and that do nothing when they are made.
_HARMLESS: list[Any] = [argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath, pathlib.PurePosixPath, set]
#: A word in the path of a value, or in the name of its file -> the component; the first that fits. For files that no
#: table knows.
_WORDS = (
    ("scheduler", "lr-scheduler"),
    ("scaler", "grad-scaler"),
    ("param_groups", "optimizer-hyperparameters"),
    ("optim", "optimizer-moments"),
    ("cuda", "rng-cuda"),
    ("numpy", "rng-numpy"),
    ("np_r", "rng-numpy"),
    ("python", "rng-python"),
    ("py_r", "rng-python"),
    ("rng", "rng-torch"),
    ("random_state", "rng-torch"),
    ("trainer_state", "counters"),
    ("model", "weights"),
    ("weight", "weights"),
    ("ema", "weights"),
)
_DEEPEST = 40
_HELD = 2_000_000


@dataclasses.dataclass(frozen=True)
class Value:
    """One value: how to get it, and whether a step of training can read it."""

    load: Callable[[], Any]
    effect: bool = True


@dataclasses.dataclass(frozen=True)
class Values:
    """What a checkpoint holds, the step it is of, and what could not be read as values."""

    step: int | None
    framework: str
    values: dict[Key, Value]
    notes: tuple[str, ...]


def read_values(path: Path) -> Values:
    """The values of a checkpoint, or of one file of one."""
    contents = open_checkpoint(path)
    layout = find_layout(contents) or transformers_trainer.LAYOUT
    found: dict[Key, Value] = {}
    notes: list[str] = []
    for entry in contents.entries:
        piece = find_piece(layout, entry.name)
        if not piece.holds or entry.name == "manifest.json":
            continue
        if piece.format != "none" and not entry.defect and entry.name not in contents.values:
            read_file(contents, entry, piece)
        defect = contents.defects.get(entry.name, entry.defect)
        values, note = _of_file(contents, layout, piece, entry.name, defect)
        notes += [note] if note else []
        found |= values
        if len(found) > _HELD:
            notes.append(f"more than {_HELD} values: the others were not compared")
            break
    return Values(agreed_step(layout.steps(contents)), layout.framework, found, tuple(notes))


def read_file_values(path: Path) -> dict[Key, Value]:
    """The values of one file of any name, as a script may have written it; by their words where no table knows it."""
    contents = open_checkpoint(path)
    layout = lightning.LAYOUT if path.suffix == ".ckpt" else transformers_trainer.LAYOUT
    (entry,) = contents.entries
    piece = find_piece(layout, entry.name)
    known = bool(piece.holds)
    if not known:
        kind: Format = "json" if path.suffix == ".json" else "torch" if piece.format == "none" else piece.format
        piece = dataclasses.replace(piece, holds=("counters",), format=kind, objects=True)
    if not entry.defect and entry.name not in contents.values:
        read_file(contents, entry, piece)
    defect = contents.defects.get(entry.name, entry.defect)
    found, _ = _of_file(contents, layout, piece, entry.name, defect)
    if known or piece.format == "safetensors":
        return found
    return {(component_of(entry.name, name), quantity, name): value for (_, quantity, name), value in found.items()}


def component_of(file: str, name: str) -> str:
    """The component that a value belongs to, as far as its path or the name of its file tells."""
    for text in (name.lower(), file.lower()):
        for word, component in _WORDS:
            if word in text:
                return "optimizer-step" if component == "optimizer-moments" and name.endswith(".step") else component
    return "counters"


def _of_file(contents: Contents, layout: Layout, piece: Piece, name: str, defect: str) -> tuple[dict[Key, Value], str]:
    path = contents.path / name if contents.path.is_dir() else contents.path
    if defect:
        return _bytes(path, piece, name), f"{name} {defect}: compared by its bytes"
    if piece.format == "safetensors":
        return _tensors(path, name, contents.values[name]), ""
    if piece.format == "json":
        return _json(contents.values[name]), ""
    if piece.holds == ("arguments",):
        return _arguments(contents), ""
    if piece.format != "torch":
        return _bytes(path, piece, name), ""
    try:
        return _of_torch(path, piece, name), ""
    except Exception as error:  # whatever torch, or the walk, finds wrong with a file of someone else
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:80]
        return _bytes(path, piece, name), f"{name} is not plain state, compared by its bytes ({reason})"


def _of_torch(path: Path, piece: Piece, name: str) -> dict[Key, Value]:
    from transformers.trainer import safe_globals

    with safe_globals(), torch.serialization.safe_globals(_HARMLESS):
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    if path.suffix == ".ckpt" and isinstance(loaded, dict):
        return _of_lightning(loaded)
    found: dict[Key, Value] = {}
    for part, value in _leaves(loaded):
        key = _key(piece, name, part)
        found[key] = Value(lambda value=value: value, effect=not _TOLD.fullmatch(key[2]))
    return found


def _is_zip(path: Path) -> bool:
    with open_regular(path) as stream:
        return stream.read(2) == b"PK"


def _key(piece: Piece, file: str, part: tuple[Any, ...]) -> Key:
    """Where a value of a torch file belongs."""
    number = "".join(re.findall(r"(_\d+)\.\w+$", file))
    if "weights" in piece.holds:
        name = ".".join(map(str, part))
        return _weight(name)
    if "optimizer-moments" in piece.holds:
        return _of_optimizer(part, number)
    if "rng-torch" in piece.holds:
        component = _STREAMS.get(str(part[0]) if part else "", "counters")
        return component, "state", f"{number.strip('_')}{_text(part[1:])}"
    return piece.holds[0], file, _text(part)


def _weight(name: str) -> Key:
    return ("buffers", "buffer", name) if _BUFFER.fullmatch(name) else ("weights", "parameter", name)


def _of_optimizer(part: tuple[Any, ...], number: str = "") -> Key:
    if part[:1] == ("state",) and len(part) > 2:
        name = f"{number}[{part[1]}]{_text(part[3:])}"
        return ("optimizer-step" if part[2] == "step" else "optimizer-moments"), str(part[2]), name
    return "optimizer-hyperparameters", str(part[-1]) if part else "", f"{number}{_text(part)}"


def _of_lightning(loaded: dict[Any, Any]) -> dict[Key, Value]:
    found: dict[Key, Value] = {}
    for top, inside in loaded.items():
        for part, value in _leaves(inside):
            if top == "optimizer_states":
                key = _of_optimizer(part[1:], f"_{part[0]}" if part and part[0] else "")
            elif top == "state_dict":
                key = _weight(".".join(map(str, part)))
            else:
                key = (_OF_LIGHTNING.get(str(top), "counters"), str(top), _text(part))
            found[key] = Value(lambda value=value: value, effect=top != "callbacks")
    return found


def _tensors(path: Path, name: str, header: Any) -> dict[Key, Value]:
    folder = f"{name.rpartition('/')[0]}." if "/" in name else ""

    def loader(tensor: str) -> Callable[[], Any]:
        def load() -> Any:
            with safe_open(path, "pt") as file:
                return file.get_tensor(tensor)

        return load

    return {_weight(folder + tensor): Value(loader(tensor)) for tensor in header}


def _json(content: dict[str, Any]) -> dict[Key, Value]:
    found: dict[Key, Value] = {}
    for part, value in _leaves(content):
        component = "callbacks" if part[:1] == ("stateful_callbacks",) else "counters"
        name = _text(part)
        found[component, "trainer_state.json", name] = Value(
            lambda value=value: value, effect=not _TOLD.fullmatch(name)
        )
    return found


def _arguments(contents: Contents) -> dict[Key, Value]:
    """Plain arguments, from the pickle as the doctor reads it."""
    state = transformers_trainer.arguments_of(contents)[1]
    plain = {str(name): value for name, value in state.items() if value is None or isinstance(value, str | int | float)}
    # Arguments of a run that was resumed may differ, and do not change what the checkpoint holds.
    return {
        ("arguments", "argument", name): Value(lambda value=value: value, effect=False) for name, value in plain.items()
    }


def _bytes(path: Path, piece: Piece, name: str) -> dict[Key, Value]:
    def load() -> str:
        digest = xxhash.xxh3_128()
        try:
            with open_regular(path) as stream:
                size = os.fstat(stream.fileno()).st_size
                while block := stream.read(1 << 22):
                    digest.update(block)
        except Unreadable as error:
            return str(error)
        return f"{size} bytes#{digest.hexdigest()}"

    return {(piece.holds[0], "file", name): Value(load)}


def _leaves(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The leaves of nested mappings and sequences with their paths; long sequences of numbers are one leaf.

    Raises ValueError where they are more than anyone saves: a few bytes can describe lists that hold themselves twice,
    two hundred times over, or a tensor of any size on one number.
    """
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    seen = 0
    while waiting:
        part, inside = waiting.pop()
        seen += 1
        if isinstance(inside, argparse.Namespace | types.SimpleNamespace):
            inside = vars(inside)
        if isinstance(inside, dict) and inside and len(part) < _DEEPEST:
            waiting += [((*part, key), item) for key, item in reversed(list(inside.items()))]
        elif isinstance(inside, list | tuple) and 0 < len(inside) <= 64 and len(part) < _DEEPEST:
            waiting += [((*part, index), item) for index, item in reversed(list(enumerate(inside)))]
        else:
            if isinstance(inside, dict | list | tuple | set | frozenset):
                seen += len(inside)
                if any(isinstance(item, dict | list | tuple | set | frozenset) for item in inside):
                    raise ValueError("it is nested deeper than state is")
            _check_plain(inside)
            yield part, str(inside) if isinstance(inside, pathlib.PurePath) else inside
        if seen > _HELD:
            raise ValueError(f"it holds more than {_HELD} values")


def _check_plain(value: Any) -> None:
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise ValueError(f"it holds a tensor of another kind ({value.layout}, {value.device})")
        if value.numel() * value.element_size() > max(value.untyped_storage().nbytes(), 1 << 20):
            raise ValueError("it holds a tensor that is larger than what is stored of it")


def _text(part: tuple[Any, ...]) -> str:
    return ".".join(map(str, part))
