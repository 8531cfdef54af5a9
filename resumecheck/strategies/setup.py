"""A training set-up as plain values; the defaults are the simplest, so that shrinking ends with few words."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Trainer


@dataclasses.dataclass(frozen=True, repr=False)
class Setup:
    """Everything that a run depends on, and where it is resumed. Called with an output directory it builds the trainer.

    Attributes:
        hidden, layers: width and number of blocks of the network.
        attention: whether it begins with a transformer layer over the features.
        norm: `none`, `layer` or `batch` (which has persistent buffers).
        dropout: its rate.
        frozen: whether the first block is not trained.
        precision: `float32`, `float64`, `bfloat16` (of the weights) or `autocast` (to bfloat16).
        draws: the global stream from which the loss draws a factor: `none`, `python`, `numpy` or `torch`.
        rows, batch_size, drop_last, workers, accumulation: of the data.
        collator: `plain`, `centred` (a function of the batch) or `noisy` (noise that is a function of the row).
        steps: optimizer steps to train, unless `epochs` is given.
        epochs: epochs to train, 0 to go by `steps`.
        optimizer: a name in `training.OPTIMIZERS`.
        weight_decay, max_grad_norm: as in the training arguments.
        scheduler, warmup: as in the training arguments.
        evaluate: `no`, `epoch`, or `steps` for every second step.
        patience: evaluations without improvement after which training stops, 0 for never. The metric never improves.
        save_every: steps between the checkpoints that the set-up writes by itself, 0 for none.
        callback: `none`, `counts` (for display), `lowers-dropout` (by the step) or `adds-noise` (to gradients).
        seed: of the run.
        mutation: a name in `catalogue.MUTATIONS`, or empty for a clean set-up.
        at: the resume points.
    """

    hidden: int = 4
    layers: int = 1
    attention: bool = False
    norm: str = "none"
    dropout: float = 0.0
    frozen: bool = False
    precision: str = "float32"
    draws: str = "none"
    rows: int = 8
    batch_size: int = 2
    drop_last: bool = False
    workers: int = 0
    accumulation: int = 1
    collator: str = "plain"
    steps: int = 6
    epochs: int = 0
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    scheduler: str = "linear"
    warmup: int = 0
    evaluate: str = "no"
    patience: int = 0
    save_every: int = 0
    callback: str = "none"
    seed: int = 0
    mutation: str = ""
    at: tuple[int, ...] = (1,)

    def __call__(self, output_dir: str) -> Trainer:
        """Build the trainer."""
        from resumecheck.strategies.training import build

        return build(self, output_dir)

    def __repr__(self) -> str:
        """What differs from the defaults, as Python."""
        fields = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return f"Setup({', '.join(f'{field.name}={value!r}' for field, value in fields if value != field.default)})"

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one may have fewer batches."""
        batches = self.rows // self.batch_size if self.drop_last else math.ceil(self.rows / self.batch_size)
        return math.ceil(batches / self.accumulation)

    @property
    def length(self) -> int:
        """Optimizer steps of the uninterrupted run."""
        steps = self.epochs * self.steps_per_epoch if self.epochs else self.steps
        # The first evaluation sets the best value, the next `patience` ones do not improve it.
        return min(steps, 2 * (1 + self.patience)) if self.patience else steps
