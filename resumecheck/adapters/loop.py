"""Drives and reads a training loop of one's own, plain PyTorch or with accelerate: docs/adapters.md shows one.

The object that the factory returns has `steps()`, a generator that yields once after each optimizer step, and either
`state_dict()` and `load_state_dict(state)`, or `save(directory)` and `load(directory)`. Modules, optimizers, schedules,
a gradient scaler and loaders are found by their type among its attributes; `max_steps` and `steps_per_epoch` are read
where they are there. What happens inside a step is seen by `loop_hooks`.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from resumecheck.adapters.contract import Length, Saving, argument_from_text, newest_numbered, unwrapped
from resumecheck.adapters.loop_hooks import LoaderBatches, LoopHooks, content_of, put_batch
from resumecheck.adapters.recorder import Recorder
from resumecheck.errors import UsageError
from resumecheck.state.capture import LiveState

#: Attributes of a loop that count, where they are whole numbers or floats.
_COUNTERS = ("step", "global_step", "epoch")
#: The file of a checkpoint that is written from `state_dict()`.
_STATE_FILE = "state.pt"


class LoopAdapter:
    """The adapter for a loop.

    Raises:
        UsageError: the object cannot be saved and loaded, or holds no model.
    """

    name = "loop"

    def __init__(self, loop: Any, output_dir: Path, target: str = "the target") -> None:
        self.loop = loop
        self.output_dir = output_dir
        self.overridden: list[str] = []
        self.entry: Any = None
        self._batches: Callable[[int, int], Any] | None = None
        self._writes_itself = all(callable(getattr(loop, name, None)) for name in ("save", "load"))
        self._steps: Any = None
        self._done = 0
        kind = type(loop).__name__
        has_state = all(callable(getattr(loop, name, None)) for name in ("state_dict", "load_state_dict"))
        if not self._writes_itself and not has_state:
            raise UsageError(
                f"{target} returned a {kind}, which has steps() but cannot be resumed.\n"
                "Give it state_dict() and load_state_dict(state), or save(directory) and load(directory)."
            )
        if not self._models():
            raise UsageError(
                f"{target} returned a {kind} without a model: no attribute of it is a torch.nn.Module with parameters"
            )

    # --- driving ----------------------------------------------------------------------------------------------------

    def attach(self, recorder: Recorder, saving: Saving, begin: Callable[[Length], None]) -> None:
        """Let the recorder see every step; write checkpoints where `saving` says; what the loop itself saves stays."""
        self._events = _Events(self, recorder, saving, begin)

    def feed(self, batches: Callable[[int, int], Any]) -> None:
        """Train on `batches(step, micro)` where that is not None."""
        self._batches = batches

    def fed(self, step: int, micro: int) -> Any:
        """What to train on instead, None for the loop's own batch."""
        return self._batches(step, micro) if self._batches is not None else None

    def log_as(self, logged: Mapping[int, list[dict[str, float]]]) -> None:
        """A loop logs by itself: what it has decided by is among its attributes."""

    def argument(self, name: str, text: str) -> Any:
        """A text converted to the type that an attribute of the loop has now."""
        return argument_from_text(self.loop, name, text)

    def set_argument(self, name: str, value: Any) -> None:
        """Set an attribute of the loop; what the loop has made from it before stays as it is."""
        setattr(self.loop, name, value)

    def arguments(self) -> dict[str, Any]:
        """The plain attributes of the loop, without what it counts."""
        return {
            name: value
            for name, value in vars(self.loop).items()
            if isinstance(unwrapped(value), bool | int | float | str) and name not in _COUNTERS
        }

    def train(self, resume_from: Path | Literal[True] | None) -> None:
        """Train to the end."""
        events = self._events
        events.begin(self.length())
        if isinstance(resume_from, Path):
            self._load(resume_from)
            self._done = int(resume_from.name.rpartition("-")[2])
        events.hooks.install()
        events.batches.install()
        self._steps = iter(self.loop.steps())
        for logged in self._steps:
            events.step_ends(logged)

    def length(self) -> Length:
        """How long the loop trains, as far as it says so."""
        loop = self.loop
        per_epoch = getattr(loop, "steps_per_epoch", None)
        loaders = list(_found(loop, DataLoader).values())
        if per_epoch is None and len(loaders) == 1:
            accelerator = self._accelerator()
            accumulated = accelerator.gradient_accumulation_steps if accelerator is not None else 1
            try:
                per_epoch = max(1, -(-len(loaders[0]) // accumulated))
            except TypeError:
                per_epoch = None
        return Length(max_steps=getattr(loop, "max_steps", None), steps_per_epoch=per_epoch)

    def finished_steps(self) -> int:
        """Optimizer steps since the start of the run, with those before the checkpoint."""
        return self._done

    def put_counters(self, counters: Mapping[str, Any]) -> None:
        """Set what the loop counts."""
        for name, value in counters.items():
            setattr(self.loop, name, value)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    @staticmethod
    def checkpoint(output_dir: Path, step: int) -> Path:
        """The directory that is written after `step`."""
        return output_dir / f"checkpoint-{step}"

    def newest(self, output_dir: Path) -> Path | None:
        """The checkpoint with the highest step, or what the loop's own `newest_checkpoint(output_dir)` finds."""
        find = getattr(self.loop, "newest_checkpoint", None)
        if not callable(find):
            return newest_numbered(output_dir)
        found = find(str(output_dir))
        if found is None:
            return None
        if not isinstance(found, str | os.PathLike) or not re.search(r"-\d+$", os.fspath(found)):
            raise UsageError(
                f"{type(self.loop).__name__}.newest_checkpoint() returned {found!r}, expected None or a checkpoint-N"
            )
        return Path(found)

    def absent_files(self, checkpoint: Path) -> dict[str, tuple[str, ...]]:
        """What the loop writes is its own affair."""
        return {}

    def save(self, step: int) -> None:
        """Write the checkpoint of `step`; one of `state_dict()` is complete or not there."""
        directory = self.checkpoint(self.output_dir, step)
        if self._writes_itself:
            directory.mkdir(parents=True, exist_ok=True)
            self.loop.save(str(directory))
            return
        unfinished = directory.with_name(f".{directory.name}.unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        torch.save(self.loop.state_dict(), unfinished / _STATE_FILE)
        os.replace(unfinished, directory)

    def _load(self, directory: Path) -> None:
        if self._writes_itself:
            self.loop.load(str(directory))
            return
        file = directory / _STATE_FILE
        try:
            state = torch.load(file, weights_only=True)
        except pickle.UnpicklingError:
            # The states of Python's and NumPy's streams, say. The file was written by this very check.
            state = torch.load(file, weights_only=False)
        self.loop.load_state_dict(state)

    # --- reading ----------------------------------------------------------------------------------------------------

    def live(self) -> LiveState:
        """The live objects of the loop."""
        models, optimizers, schedulers = self._models(), self._optimizers(), self._schedulers()
        scalers = list(_found(self.loop, torch.amp.GradScaler).values())
        accelerator = self._accelerator()
        if not scalers and accelerator is not None and accelerator.scaler is not None:
            scalers = [accelerator.scaler]
        return LiveState(
            models=models,
            optimizers=optimizers,
            schedulers=schedulers,
            scaler=scalers[0] if scalers else None,
            counters={
                name: value
                for name in _COUNTERS
                if isinstance(value := getattr(self.loop, name, None), int | float) and not isinstance(value, bool)
            },
            roots=self._roots(models, optimizers, schedulers),
        )

    def _roots(self, models: dict[str, Any], optimizers: dict[str, Any], schedulers: dict[str, Any]) -> dict[str, Any]:
        known: list[Any] = [tensor for model in models.values() for tensor in (*model.parameters(), *model.buffers())]
        for optimizer in optimizers.values():
            known += [optimizer.state, optimizer.param_groups, optimizer.defaults]
        roots: dict[str, Any] = {"__known__": known, "__paths__": {str(self.output_dir): "{output_dir}"}}
        roots |= models | optimizers
        for name, scheduler in schedulers.items():
            roots["lr_scheduler" if len(schedulers) == 1 else f"lr_scheduler.{name}"] = scheduler
        roots |= {"loop": self.loop, "loop.steps()": self._steps, "module globals": self.entry}
        return roots

    def _models(self) -> dict[str, torch.nn.Module]:
        """The modules with parameters or buffers that lie in no other one."""
        found = _found(self.loop, torch.nn.Module)
        inner = {id(module) for outer in found.values() for module in outer.modules() if module is not outer}
        return {
            name: module
            for name, module in found.items()
            if id(module) not in inner
            and (any(True for _ in module.parameters()) or any(True for _ in module.buffers()))
        }

    def _optimizers(self) -> dict[str, Any]:
        return _found(self.loop, torch.optim.Optimizer)

    def _schedulers(self) -> dict[str, Any]:
        return _found(self.loop, LRScheduler)

    def _accelerator(self) -> Any:
        from accelerate import Accelerator

        return next(iter(_found(self.loop, Accelerator).values()), None)


class _Events:
    """What a loop does, passed on to the recorder."""

    def __init__(
        self, adapter: LoopAdapter, recorder: Recorder, saving: Saving, begin: Callable[[Length], None]
    ) -> None:
        self.adapter = adapter
        self.recorder = recorder
        self.saving = saving
        self.begin = begin
        self.batches = LoaderBatches()
        self.batches.on_training_iterator = recorder.epoch_starts
        self.hooks = LoopHooks(adapter._models, self.forward, self.backward, self.update)
        self.open = False
        self.micro = 0
        self.has_loss = True

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A model is about to be called: with the first call a step starts."""
        step = self.adapter.finished_steps() + 1
        if not self.open:
            self.recorder.step_starts(step)
            self.open, self.micro = True, 0
        batch, ids = self.batches.take()
        stored = self.adapter.fed(step, self.micro)
        if stored is not None:
            put_batch(batch, stored.get("batch"))
            put_batch(args, tuple(stored.get(str(index)) for index in range(len(args))))
            put_batch(kwargs, stored)
        self.recorder.batch(content_of(args, kwargs, batch), ids)
        self.micro, self.has_loss = self.micro + 1, False
        return args, kwargs

    def backward(self, loss: torch.Tensor) -> None:
        """The loss of what went forward last."""
        if self.open and not self.has_loss:
            self.has_loss = True
            self.recorder.loss(loss)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer is about to update."""
        optimizers = list(self.adapter._optimizers().values())
        if not self.open or all(optimizer is not known for known in optimizers):
            return
        self.recorder.gradients()
        self.recorder.update([group["lr"] for each in optimizers for group in each.param_groups])

    def step_ends(self, logged: Any) -> None:
        """The loop has yielded: the step is over; write a checkpoint at a resume point."""
        adapter, recorder = self.adapter, self.recorder
        if not self.open:
            raise UsageError(
                f"{type(adapter.loop).__name__}.steps() yielded although no model of it was called in training.\n"
                "It has to yield once after each optimizer step; its models are attributes and are in train() mode."
            )
        numbers = {name: float(value) for name, value in _numbers(logged)}
        if not self.has_loss and "loss" in numbers:
            recorder.loss(numbers["loss"])
        self.open, self.has_loss = False, True
        step = adapter._done = adapter.finished_steps() + 1
        recorder.step_ends(step, getattr(adapter.loop, "epoch", None))
        if numbers:
            recorder.event("log", logs=numbers)
        if step in self.saving.at:
            adapter.save(step)
        self.hooks.look_again()


def _numbers(logged: Any) -> Iterator[tuple[str, Any]]:
    """The numbers among what a loop yields: one is the loss, a mapping names them."""
    items = logged.items() if isinstance(logged, Mapping) else [("loss", logged)]
    for name, value in items:
        if isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1):
            yield str(name), value


def _found(loop: Any, kind: type) -> dict[str, Any]:
    """Objects of a type among the attributes of a loop, and in the lists and mappings there; accelerate's unwrapped."""
    found: dict[str, Any] = {}

    def look(name: str, value: Any) -> None:
        inner = unwrapped(value)
        if isinstance(inner, kind) and all(inner is not known for known in found.values()):
            found[name] = inner

    for name, value in getattr(loop, "__dict__", {}).items():
        look(name, value)
        held = unwrapped(value)
        items = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list | tuple) else ()
        for key, item in items:
            look(f"{name}[{key!r}]", item)
    return found
