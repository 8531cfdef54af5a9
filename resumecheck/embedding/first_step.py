"""The first step after a checkpoint: recorded by the run that saved it, compared by the run that resumes from it.

Files that are whole and state that equals its file do not show that a run goes on: a manifest can vouch for other
moments, and a sample can differ behind the same row number. The next step depends on all of it (weights, moments,
rates, random streams, data), so it is the step that is compared. The step before the checkpoint would show less and
cost more: the state that it started from is in no checkpoint, while the next step is made by both runs anyway. The
price is a digest of the weights once a save. The record lies beside the checkpoint, which does not change once it has
its name.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
import xxhash
from accelerate.utils import gather_object
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from resumecheck.embedding.checkpoint import record_of, step_of
from resumecheck.errors import UsageError
from resumecheck.state.digest import raw_bytes


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step did, bit for bit, in one process.

    `losses` are those of its micro-batches, `weights` is the digest of the trained weights after it.
    """

    losses: list[str]
    weights: str


class FirstStep(TrainerCallback):
    """Watches the step after a save or a resume."""

    def __init__(self) -> None:
        self._checkpoint: Path | None = None
        self._expected: list[Step] | None = None
        self._losses: list[torch.Tensor] = []

    def record_after(self, checkpoint: Path) -> None:
        """Record the step that comes now beside this checkpoint, which was just saved."""
        self._checkpoint, self._expected, self._losses = checkpoint, None, []

    def compare_after(self, checkpoint: Path) -> str:
        """Compare the step that comes now with the record beside this checkpoint; returns what to tell.

        The step raises UsageError where it is another one.
        """
        expected = _read(record_of(checkpoint))
        if expected is None:
            return "no first step is recorded (the run ended before it, or the checkpoint was moved): not compared"
        self._checkpoint, self._expected, self._losses = checkpoint, expected, []
        return "is compared with the recorded once it is made"

    def on_loss(self, loss: torch.Tensor) -> None:
        """The loss of a micro-batch."""
        if self._checkpoint is not None:
            self._losses.append(loss.detach())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record or compare, before anything of this step is saved."""
        checkpoint, expected, losses = self._checkpoint, self._expected, self._losses
        self._checkpoint, self._expected, self._losses = None, None, []
        if checkpoint is None or state.global_step != (step_of(checkpoint) or 0) + 1:
            return
        made = Step([float(loss).hex() for loss in losses], _digest(kwargs["model"]))
        steps: list[Step] = gather_object([made])  # by process
        if expected is not None:
            _compare(checkpoint, expected, steps)
            if args.process_index == 0:
                print(f"step {state.global_step} is the recorded, bit for bit: losses, weights", file=sys.stderr)
        elif args.should_save and checkpoint.is_dir():
            _write(record_of(checkpoint), steps)


def _compare(checkpoint: Path, expected: list[Step], steps: list[Step]) -> None:
    what = ""
    for rank, (recorded, made) in enumerate(zip(expected, steps, strict=True)):
        if recorded.losses != made.losses:  # the cause, where the weights of another process are others too
            pairs = zip(recorded.losses, made.losses, strict=False)
            before, now = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
            of = f" of process {rank}" if len(steps) > 1 else ""
            what = f"its loss{of} is {now}, recorded is {before}: weights, data or random streams are others"
            break
        if recorded.weights != made.weights:
            what = "its losses are the recorded, the weights after it are not: the optimizer or its rate is another"
    if what:
        raise UsageError(
            f"--verify_resume: the first step after {checkpoint.name} is not the one that the run made: {what}\n"
            "Resume from an earlier checkpoint, or leave --verify_resume out."
        )


def _digest(model: nn.Module) -> str:
    digest = xxhash.xxh3_128()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            digest.update(name.encode())
            digest.update(raw_bytes(parameter.detach().cpu()))
    return digest.hexdigest()


def _write(path: Path, steps: list[Step]) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps([dataclasses.asdict(step) for step in steps]) + "\n", encoding="utf-8")
    new.replace(path)


def _read(path: Path) -> list[Step] | None:
    try:
        return [Step(**step) for step in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):  # none, or one that a crash of the machine has torn
        return None
