"""The files of two output directories, tensor by tensor: which hold something else, and what that is part of."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resumecheck.state.digest import flatten

#: A word in the path of a value, or in the name of its file -> the component; the first that fits.
_WORDS = (
    ("scheduler", "lr-scheduler"),
    ("scaler", "grad-scaler"),
    ("param_groups", "optimizer-hyperparameters"),
    ("optim", "optimizer-moments"),
    ("cuda", "rng-cuda"),
    ("numpy", "rng-numpy"),
    ("python", "rng-python"),
    ("rng", "rng-torch"),
    ("random_state", "rng-torch"),
    ("trainer_state", "counters"),
    ("model", "weights"),
    ("weight", "weights"),
)
#: Files with tensors, and files with rows that were logged.
_STATE, _LOGGED = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".json"), (".jsonl", ".csv", ".txt", ".log")
#: Files that describe a run and are no state of it.
_OF_THE_RUN = ("training_args.bin", "config.json", "tokenizer.json", "tokenizer_config.json")


@dataclasses.dataclass(frozen=True)
class FileDifference:
    """A file that holds something else: the component, the first value that differs, and how many do.

    `logged` says that it is a row that was logged, which is no state.
    """

    file: str
    component: str
    name: str
    expected: str | None
    got: str | None
    count: int = 1
    logged: bool = False

    @property
    def words(self) -> str:
        """The difference in words."""
        others = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return f"{self.file} {self.name}".strip() + f": expected {self.expected}, got {self.got}{others}"


def compare_outputs(expected: Path, got: Path) -> list[FileDifference]:
    """Files of two output directories that differ in a value, by name; a missing file is one too."""
    names = {str(path.relative_to(root)) for root in (expected, got) for path in root.rglob("*") if path.is_file()}
    found: list[FileDifference] = []
    for name in sorted(names):
        if Path(name).name not in _OF_THE_RUN and Path(name).suffix in (*_STATE, *_LOGGED):
            found += _of_file(name, expected / name, got / name)
    return found


def _of_file(name: str, expected: Path, got: Path) -> Iterator[FileDifference]:
    missing = [path for path in (expected, got) if not path.is_file()]
    if missing:
        before, now = ("a file" if path.is_file() else "none" for path in (expected, got))
        yield FileDifference(name, "checkpoint-files", "", before, now, logged=expected.suffix in _LOGGED)
        return
    if expected.read_bytes() == got.read_bytes():
        return
    pair = [dict(_values(path)) for path in (expected, got)]
    parts: dict[tuple[str, bool], list[str]] = {}
    for path in {**pair[0], **pair[1]}:
        if pair[0].get(path) != pair[1].get(path):
            logged = expected.suffix in _LOGGED or "log_history" in path
            parts.setdefault((component_of(name, path), logged), []).append(path)
    for (component, logged), paths in parts.items():
        first = paths[0]
        values = pair[0].get(first), pair[1].get(first)
        yield FileDifference(name, component, first, *values, count=len(paths), logged=logged)


def component_of(file: str, path: str) -> str:
    """The component that a value belongs to, as far as its path or the name of its file tells."""
    for text in (path.lower(), Path(file).name.lower()):
        for word, component in _WORDS:
            if word in text:
                return "optimizer-step" if component == "optimizer-moments" and path.endswith("['step']") else component
    return "counters"


def _values(path: Path) -> Iterator[tuple[str, str]]:
    """The values in a file by path; its lines where it is text."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return flatten(load_file(path))
    if path.suffix in _LOGGED:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return iter([(f"line {number}", line[:200]) for number, line in enumerate(lines, start=1)])
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            return flatten(json.loads(path.read_text(encoding="utf-8")))
        return iter([("", "no JSON")])
    return flatten(_torch_file(path))


def _torch_file(path: Path) -> Any:
    """What `torch.save` wrote; the command of this very check wrote it, so that it may be unpickled."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        with contextlib.suppress(Exception):
            return torch.load(path, map_location="cpu", weights_only=False)
    return path.read_bytes()
