"""What a framework's checkpoint looks like: a table of its files, and of what is lost without them."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from resumecheck.checkpoints.diagnosis import Loss, Problem
from resumecheck.checkpoints.reading.files import Entry

Format = Literal["safetensors", "torch", "json", "none"]

RNG = ("rng-python", "rng-numpy", "rng-torch", "rng-cuda")
OPTIMIZER = ("optimizer-moments", "optimizer-step", "optimizer-hyperparameters")
MODEL = ("weights", "buffers")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A kind of file: which names it has, what it holds, and how it is read.

    Attributes:
        pattern: a regular expression for the path relative to the checkpoint.
        holds: components of the training state.
        what: the same in words.
        format: how it is read; `none` is not looked into.
        objects: whether it is a pickle of objects by nature, such as arguments, so that only code is a defect.
    """

    pattern: str
    holds: tuple[str, ...]
    what: str
    format: Format = "none"
    objects: bool = False


@dataclasses.dataclass(frozen=True)
class Need:
    """A file without which something is lost.

    Attributes:
        name: the file as a person knows it.
        patterns: any of these, as a regular expression for a path, will do.
        loses: what is lost without it.
        silent: whether a resume goes on without it.
        why: what happens then.
        optional: where a run may well have no such file: its absence is a loss to be told, but no defect.
    """

    name: str
    patterns: str
    loses: tuple[str, ...]
    silent: bool
    why: str
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Contents:
    """A checkpoint as it was read.

    Attributes:
        path: the directory (or file).
        entries: its files.
        values: name -> what the file holds: a `TorchFile`, a JSON object, the header of a safetensors file.
        defects: name -> why a file could not be read or must not be loaded.
        remarks: about what was not looked at.
    """

    path: Path
    entries: tuple[Entry, ...]
    values: dict[str, Any]
    defects: dict[str, str]
    remarks: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of all files."""
        return [entry.name for entry in self.entries]

    def matching(self, pattern: str) -> list[str]:
        """The files whose whole name fits."""
        return [name for name in self.names if re.fullmatch(pattern, name)]

    def has(self, pattern: str) -> bool:
        """Whether there is such a file."""
        return bool(self.matching(pattern))


def _nothing(contents: Contents) -> Iterable[Any]:
    return ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """A framework.

    Attributes:
        framework: its name.
        marks: whether a directory with these files (as far as names tell) was written by it.
        pieces: the first whose pattern fits says what a file is.
        needs: what has to be there.
        steps: where a step count is -> the count.
        problems: what only this framework can know: ranks that are missing, counts that contradict each other.
        losses: what is lost though every file is there.
        remarks: for a person.
        resume: the call that resumes from a checkpoint at this path.
        instead: what not to do.
    """

    framework: str
    marks: Callable[[Contents], bool]
    pieces: tuple[Piece, ...]
    needs: tuple[Need, ...]
    steps: Callable[[Contents], dict[str, int]]
    resume: Callable[[Path], str]
    problems: Callable[[Contents], Iterable[Problem]] = _nothing
    losses: Callable[[Contents], Iterable[Loss]] = _nothing
    remarks: Callable[[Contents], Iterable[str]] = _nothing
    instead: str = ""


def count(value: Any) -> int | None:
    """A step count: a whole number that is not negative; None for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return value if type(value) is int and 0 <= value < 2**60 else None


def counts(**found: Any) -> dict[str, int]:
    """Those that are step counts, by name."""
    return {name: number for name, value in found.items() if (number := count(value)) is not None}


def mapping(value: Any) -> dict[Any, Any]:
    """A mapping, empty where the value is none."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any] | tuple[Any, ...]:
    """A list or tuple, empty where the value is none."""
    return value if isinstance(value, list | tuple) else ()


def optimizer_step(file: Any, state: Any) -> int | None:
    """The largest step count in an optimizer's `state_dict`, None where it keeps none."""
    steps = [count(file.number(mapping(of).get("step"))) for of in mapping(mapping(state).get("state")).values()]
    return max((step for step in steps if step is not None), default=None)


def missing_ranks(contents: Contents, pattern: str, what: str) -> Iterable[Problem]:
    """Files of ranks are numbered without a gap: `pattern` has one group, the rank."""
    ranks = {int(match[1]): match[0] for name in contents.names if (match := re.fullmatch(pattern, name))}
    if ranks and max(ranks) < 100_000:
        for rank in range(max(ranks)):
            if rank not in ranks:
                yield Problem("missing", "", f"{what} of rank {rank} is missing, that of rank {max(ranks)} is there")
                return


def quoted(path: Path) -> str:
    """A path for a command line."""
    return shlex.quote(str(path))
