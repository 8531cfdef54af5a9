"""What Lightning tells while it trains: a callback, and wrapped methods of the Trainer, its strategy and its loops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from resumecheck.adapters.contract import Length, Saving
from resumecheck.adapters.loader_ids import LoaderIds
from resumecheck.adapters.recorder import Recorder

if TYPE_CHECKING:
    from resumecheck.adapters.lightning_trainer import LightningAdapter

#: Metrics that measure the machine, not the run.
_MACHINE_METRICS = ("runtime", "per_second", "time", "memory")


class TrainingIds(LoaderIds):
    """Every loader that runs outside an evaluation is a training loader: a loader of one's own may wrap torch's."""

    def recognises(self, loader: Any) -> bool:
        """Whether an iterator over this loader is a training iterator."""
        return not self._paused


class LightningEvents:
    """What Lightning tells while it trains, passed on to the recorder; becomes a callback when it is attached."""

    def __init__(
        self,
        adapter: LightningAdapter,
        recorder: Recorder,
        saving: Saving,
        begin: Callable[[Length], None],
        ids: LoaderIds,
    ) -> None:
        self.adapter = adapter
        self.recorder = recorder
        self.saving = saving
        self.begin = begin
        self.ids = ids
        self.open = False
        self.micro = 0
        self.batch_number: int | None = None
        self.before = 0
        self.wanted: int | None = None
        self.ours = False
        ids.on_training_iterator = recorder.epoch_starts

    # Wrapped methods: the first argument is the method as it was.

    def run(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around the whole of training: come after callbacks that the module has added."""
        callbacks = self.adapter.trainer.callbacks
        callbacks.append(callbacks.pop(next(i for i, each in enumerate(callbacks) if each is self)))
        return original(*args, **kwargs)

    def validate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around a validation: its loaders are not training loaders, even over the same data."""
        with self.ids.paused():
            return original(*args, **kwargs)

    def training_step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around the module's training_step: one forward of a batch."""
        trainer, recorder = self.adapter.trainer, self.recorder
        step = self.adapter.finished_steps() + 1
        if not self.open:
            self.open, self.micro, self.before = True, 0, trainer.global_step
            recorder.step_starts(step)
        number = trainer.fit_loop.epoch_loop.total_batch_idx
        ids: list[Any] | None = []
        if number != self.batch_number:  # an optimizer may ask for the same batch again
            self.batch_number = number
            ids = self.ids.next_ids() if len(trainer.fit_loop._combined_loader.flattened) == 1 else None
        if args:
            args = (self.adapter.fed(step, self.micro, args[0]), *args[1:])
        recorder.batch(args[0] if args else None, ids)
        self.micro += 1
        return original(*args, **kwargs)

    def save_checkpoint(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around every save: the target's own are left out where the run is to write none."""
        if not self.ours and not self.saving.own:
            return None
        if not self.ours:
            self.recorder.event("save")
        return original(*args, **kwargs)

    # Callback hooks.

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The length of the run is known."""
        self.begin(self.adapter.length())

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """The loss of the batch that went forward last."""
        if self.open and self.micro:
            self.recorder.loss(loss.detach())

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """The update is about to happen; gradients are not clipped yet."""
        if self.open and self.micro:
            self.recorder.gradients()
            self.recorder.update([group["lr"] for each in trainer.optimizers for group in each.param_groups])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch is over, and with the last one of a step the step; save at a resume point inside an epoch."""
        if not self.open or trainer.global_step == self.before:
            return
        self.open = False
        self.adapter._done += 1
        step = self.adapter.finished_steps()
        progress = trainer.fit_loop.epoch_loop.batch_progress
        self.recorder.step_ends(step, progress.current.ready / trainer.num_training_batches + trainer.current_epoch)
        if step in self.saving.at:
            at_boundary = progress.is_last_batch or progress.current.ready == trainer.num_training_batches
            self.wanted = step if at_boundary else None
            if not at_boundary:
                self._save(step)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """At an epoch boundary the checkpoint is written where `ModelCheckpoint(every_n_epochs=1)` writes it."""
        self.recorder.event("log", logs=_numbers(trainer.callback_metrics))
        if self.wanted is not None:
            self._save(self.wanted)
            self.wanted = None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """A validation has ended."""
        if not trainer.sanity_checking and self.recorder.started:
            results = trainer._results
            metrics = results.metrics(on_step=False)["callback"] if results is not None else {}
            self.recorder.event("evaluate", metrics=_numbers(metrics))

    def _save(self, step: int) -> None:
        self.ours = True
        try:
            self.adapter.save(step)
        finally:
            self.ours = False


def wrap(owner: Any, method: str, around: Callable[..., Any]) -> None:
    """Let `around(original, ...)` stand in the place of a method of one object."""
    original = getattr(owner, method)
    setattr(owner, method, functools.wraps(original)(functools.partial(around, original)))


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)
        if not any(word in name for word in _MACHINE_METRICS)
    }
