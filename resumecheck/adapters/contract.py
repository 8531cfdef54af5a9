"""The one contract of an adapter, and the choice of the adapter for what a target returned."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from resumecheck.adapters.recorder import Recorder
from resumecheck.errors import UsageError
from resumecheck.state.capture import LiveState


@dataclasses.dataclass(frozen=True)
class Saving:
    """When a run writes checkpoints.

    Attributes:
        own: whether the target's own saving stays on.
        at: resume points at which a checkpoint is written in addition.
    """

    own: bool
    at: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a target trains: optimizer steps in all, and optimizer steps of one epoch (None where unknown)."""

    max_steps: int | None
    steps_per_epoch: int | None


class Adapter(Protocol):
    """Drives and reads one live trainer.

    `attach` must not change what the trainer computes. `train` returns when training has ended by itself; the recorder
    may end it earlier by raising `RunStopped`. `checkpoint` is the directory that a resume after `step` is given.
    """

    name: str
    overridden: list[str]
    entry: Any  # the target's factory, where the census finds the target's own module

    def live(self) -> LiveState:
        """The live objects of the run, as they are now."""
        ...

    def attach(self, recorder: Recorder, saving: Saving, begin: Callable[[Length], None]) -> None:
        """Let the recorder see every step; write checkpoints as `saving` says; call `begin` before the first step."""
        ...

    def feed(self, batches: Callable[[int, int], Any]) -> None:
        """From now on train on `batches(step, micro)` where that is not None, in place of the run's own batches."""
        ...

    def log_as(self, logged: Mapping[int, list[dict[str, float]]]) -> None:
        """From now on log these numbers, by step and in the order of logging, in place of the run's own."""
        ...

    def argument(self, name: str, text: str) -> Any:
        """The value that a text gives a training argument; a UsageError where it fits none."""
        ...

    def set_argument(self, name: str, value: Any) -> None:
        """Set one training argument."""
        ...

    def arguments(self) -> dict[str, Any]:
        """The training arguments as plain values, without paths."""
        ...

    def train(self, resume_from: Path | Literal[True] | None) -> None:
        """Train to the end, from the start or from a checkpoint; True, from `newest`, lets the trainer choose one."""
        ...

    def finished_steps(self) -> int:
        """Optimizer steps as the trainer counts them."""
        ...

    def put_counters(self, counters: Mapping[str, Any]) -> None:
        """Set counters of the trainer's own state."""
        ...

    @staticmethod
    def checkpoint(output_dir: Path, step: int) -> Path:
        """The checkpoint that is written after `step`."""
        ...

    def newest(self, output_dir: Path) -> Path | Literal[True] | None:
        """What a user's resume in this output directory goes on from; None where there is no checkpoint."""
        ...

    def absent_files(self, checkpoint: Path) -> dict[str, tuple[str, ...]]:
        """Files that loading looks for and this checkpoint does not have -> the components that they hold."""
        ...


def adapter_for(built: Any, output_dir: Path, target: str) -> Adapter:
    """The adapter for what `build(output_dir)` returned.

    Raises:
        UsageError: it is nothing that resumecheck can train.
    """
    from transformers import Trainer

    if isinstance(built, Trainer):
        from resumecheck.adapters.transformers_trainer import TrainerAdapter

        return TrainerAdapter(built, output_dir)
    from resumecheck.adapters.lightning_trainer import LightningAdapter, lightning_package

    if lightning_package(built) is not None:
        return LightningAdapter(built, output_dir, target)
    if callable(getattr(built, "steps", None)):
        from resumecheck.adapters.loop import LoopAdapter

        return LoopAdapter(built, output_dir, target)
    raise UsageError(
        f"{target} returned {_describe(built)}, expected a transformers.Trainer.\n"
        "A target is a factory `build(output_dir)` that returns the trainer without training it, Lightning's\n"
        "`trainer, module, data`, or a loop with steps(), state_dict() and load_state_dict() (docs/adapters.md)."
    )


def newest_numbered(output_dir: Path) -> Path | None:
    """The `checkpoint-N` in a directory with the highest number, None where there is none."""
    names = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in output_dir.iterdir()}
    numbered = {int(match[1]): path for path, match in names.items() if match is not None}
    return numbered[max(numbered)] if numbered else None


def unwrapped(value: Any) -> Any:
    """The torch object inside accelerate's wrapper; None for a proxy whose object cannot be reached."""
    try:
        value.__class__  # noqa: B018 - isinstance asks for it
    except Exception:
        return None
    if type(value).__module__.startswith("accelerate."):
        for attribute in ("optimizer", "scheduler"):
            if hasattr(value, attribute):
                return getattr(value, attribute)
    return value


def argument_from_text(owner: Any, name: str, text: str) -> Any:
    """A text converted to the type that the attribute `name` of `owner` has now.

    Raises:
        UsageError: there is no such attribute, or the text fits it not.
    """
    if not hasattr(owner, name):
        raise UsageError(f"--on-resume {name}={text}: {type(owner).__name__} has no argument {name!r}")
    now = getattr(owner, name)
    try:
        value: Any = text
        if isinstance(now, bool):
            value = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        elif isinstance(now, int | float):
            value = type(now)(text) if not (isinstance(now, int) and "." in text) else float(text)
    except (KeyError, ValueError) as error:
        raise UsageError(f"--on-resume {name}={text}: expected a {type(now).__name__} like {now!r}") from error
    return value


def _describe(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__module__}.{type(value).__qualname__}"
