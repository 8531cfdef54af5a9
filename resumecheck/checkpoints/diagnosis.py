"""What the doctor found: facts as frozen dataclasses, and their JSON form (`resumecheck/schema/doctor-1.json`)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

SCHEMA_VERSION = 1

Kind = Literal["checkpoint", "output directory", "model", "unknown"]
Cause = Literal["missing", "damaged", "never saved", "not restored"]


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a checkpoint.

    Attributes:
        name: path relative to the checkpoint.
        size: in bytes.
        holds: the components of the training state that it holds.
        what: the same in words, or what the file is.
        state: `whole` (read, and it makes sense), `damaged`, `code` (a pickle that would run code when it is loaded),
            `unread` (not a file that a resume reads, or of a kind that is not looked into).
        remark: why it is damaged, or what else was noticed.
    """

    name: str
    size: int
    holds: tuple[str, ...]
    what: str
    state: Literal["whole", "damaged", "code", "unread"]
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is missing, damaged, hostile or contradictory; `file` is "" where it is no single file."""

    kind: Literal["missing", "damaged", "code", "disagreement"]
    file: str
    message: str


@dataclasses.dataclass(frozen=True)
class Loss:
    """A component that a resume from this checkpoint would not bring back.

    Attributes:
        component: as in the table of components.
        cause: its file is missing or damaged; the framework never saves it; it is saved but not put back.
        silent: whether the resume goes on without it, rather than failing.
        why: in words.
    """

    component: str
    cause: Cause
    silent: bool
    why: str


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        path: where it is.
        framework: what wrote it.
        step: the optimizer step after which it was taken, None where nothing says so.
        steps: where a step count was found -> the count.
        files: every file, in order of name.
        problems: what is missing, damaged or contradictory; none where the checkpoint is whole.
        losses: what a resume would lose, in causal order.
        remarks: what else a person should know.
        resume: the command or call that resumes from it.
        whole: whether nothing is missing or damaged.
    """

    path: str
    framework: str
    step: int | None
    steps: dict[str, int]
    files: tuple[File, ...]
    problems: tuple[Problem, ...]
    losses: tuple[Loss, ...]
    remarks: tuple[str, ...]
    resume: str
    whole: bool


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What a path holds.

    Attributes:
        path: as given.
        kind: `checkpoint`, `output directory` (of checkpoints), `model` (weights without training state), `unknown`.
        framework: what wrote it.
        checkpoints: the one, or all of the output directory in order of step.
        newest_whole: path of the newest checkpoint that is whole, None where there is none.
        resume: the command or call that resumes rightly, or what to do instead.
        remarks: about the path as a whole.
    """

    path: str
    kind: Kind
    framework: str
    checkpoints: tuple[Checkpoint, ...]
    newest_whole: str | None
    resume: str
    remarks: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether there is a checkpoint, and every one is whole."""
        return bool(self.checkpoints) and all(checkpoint.whole for checkpoint in self.checkpoints)

    @property
    def exit_status(self) -> int:
        """0 where all is whole, 1 where something is missing or damaged."""
        return 0 if self.whole else 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, in the shape of the published schema."""
        facts = {"schema": SCHEMA_VERSION, "whole": self.whole, **dataclasses.asdict(self)}
        return _plain(facts)


def _plain(value: Any) -> Any:
    """Tuples as lists; names of files that are no Unicode in a form that can be written."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
