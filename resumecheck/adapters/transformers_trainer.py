"""Drives and reads a transformers `Trainer` and every subclass, through its callbacks and wrapped bound methods.

Two methods of the instance are wrapped: `training_step` (just before a forward, and the loss) and
`_maybe_log_save_evaluate` (where a save is decided). Wrapping the instance leaves overrides of subclasses in place.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import CallbackHandler, ExportableState, TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy, get_last_checkpoint

from resumecheck.adapters.contract import Length, Saving, argument_from_text, unwrapped
from resumecheck.adapters.loader_ids import LoaderIds
from resumecheck.adapters.recorder import Recorder
from resumecheck.state.capture import LiveState

#: Counters of TrainerState that the run depends on; logs, paths and what is recomputed at the start are left out.
_COUNTERS = (
    "global_step", "epoch", "max_steps", "num_train_epochs", "best_metric", "best_global_step", "num_input_tokens_seen",
    "save_steps", "eval_steps", "logging_steps", "train_batch_size",
)  # fmt: skip
#: Attributes of a Trainer that the census does not start from: read elsewhere, or no state of the run.
_NOT_ROOTS = frozenset(
    {
        "model", "model_wrapped", "args", "state", "accelerator", "callback_handler", "optimizer", "lr_scheduler",
        "_memory_tracker", "processing_class", "tokenizer", "training_step", "_maybe_log_save_evaluate", "log",
        "hp_name", "get_train_dataloader", "evaluate", "deepspeed", "current_flos", "_total_loss_scalar", "_tr_loss",
        "_globalstep_last_logged", "_initial_num_input_tokens_seen", "_initial_global_step", "control",
        "current_gradient_accumulation_steps", "is_in_train", "_signature_columns", "_eval_dataloaders",
    }
)  # fmt: skip
_STATE_FIELDS, _CONTROL_FIELDS = (
    frozenset(field.name for field in dataclasses.fields(kind)) for kind in (TrainerState, TrainerControl)
)
#: The optimizer and the schedule are loaded together, or neither of them.
_OF_OPTIMIZER = ("optimizer-moments", "optimizer-step", "optimizer-hyperparameters", "lr-scheduler")
#: Files of a checkpoint -> the components that are lost without them.
_FILES = {
    "optimizer.pt": _OF_OPTIMIZER,
    "scheduler.pt": _OF_OPTIMIZER,
    "rng_state.pth": ("rng-python", "rng-numpy", "rng-torch", "rng-cuda"),
    "trainer_state.json": ("counters", "callbacks"),
}
#: Arguments that name where a run writes, or from where it goes on.
_NO_ARGUMENTS = frozenset({"output_dir", "logging_dir", "run_name", "resume_from_checkpoint"})
#: Metrics that measure the machine, not the run.
_MACHINE_METRICS = ("runtime", "per_second", "time", "memory", "mem_")


class TrainerAdapter:
    """The adapter for `transformers.Trainer`."""

    name = "transformers"

    def __init__(self, trainer: Trainer, output_dir: Path) -> None:
        self.trainer = trainer
        self.output_dir = output_dir
        self.overridden: list[str] = []
        self.entry: Any = None
        self._batches: Callable[[int, int], Any] | None = None
        self._wrapped: dict[str, Any] = {}

    # --- driving ----------------------------------------------------------------------------------------------------

    def attach(self, recorder: Recorder, saving: Saving, begin: Callable[[Length], None]) -> None:
        """Let the recorder see every step; write checkpoints as `saving` says; `begin` gets the length of the run."""
        args = self.trainer.args
        if args.load_best_model_at_end:
            args.load_best_model_at_end = False
            self.overridden.append("load_best_model_at_end was switched off: the best model is not loaded at the end")
        if not saving.own and args.save_strategy == SaveStrategy.BEST:
            args.save_strategy = SaveStrategy.NO
        self.trainer.add_callback(self.observe(recorder, saving, begin, LoaderIds()))

    def observe(
        self, recorder: Recorder, saving: Saving, begin: Callable[[Length], None], ids: LoaderIds
    ) -> TrainerEvents:
        """Wrap what the recorder has to see; the events of the trainer's callbacks are the caller's to pass on."""
        ids.install()
        events = TrainerEvents(self, recorder, saving, begin, ids)
        self.wrap("training_step", events.training_step)
        self.wrap("_maybe_log_save_evaluate", events.maybe_save)
        self.wrap("get_train_dataloader", events.train_dataloader)
        self.wrap("evaluate", events.evaluate)
        return events

    def wrap(self, method: str, around: Callable[..., Any]) -> None:
        """Put `around(method, ...)` in the place of a method of the trainer."""
        self._wrapped.setdefault(method, vars(self.trainer).get(method))
        original = getattr(self.trainer, method)
        setattr(self.trainer, method, functools.wraps(original)(functools.partial(around, original)))

    def unwrap(self) -> None:
        """Give the trainer its own methods back."""
        for method, own in self._wrapped.items():
            vars(self.trainer).pop(method, None)
            if own is not None:
                setattr(self.trainer, method, own)
        self._wrapped.clear()

    def feed(self, batches: Callable[[int, int], Any]) -> None:
        """Train on `batches(step, micro)` where that is not None."""
        self._batches = batches

    def fed(self, step: int, micro: int, own: Any) -> Any:
        """The batch to train on."""
        batch = self._batches(step, micro) if self._batches is not None else None
        return own if batch is None else batch

    def log_as(self, logged: Mapping[int, list[dict[str, float]]]) -> None:
        """Log these numbers, by step and in the order of logging, where the run logs numbers of the same names."""
        left = {step: list(numbers) for step, numbers in logged.items()}

        def log(original: Callable[..., Any], logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            here = left.get(self.trainer.state.global_step)
            theirs = here.pop(0) if here else {}
            logs |= {name: value for name, value in theirs.items() if name in logs}
            original(logs, *args, **kwargs)

        self.wrap("log", log)

    def argument(self, name: str, text: str) -> Any:
        """A text converted to the type that a training argument has now."""
        return argument_from_text(self.trainer.args, name, text)

    def set_argument(self, name: str, value: Any) -> None:
        """Set one training argument, and what the Trainer has derived from it when it was made."""
        trainer = self.trainer
        setattr(trainer.args, name, value)
        if name == "per_device_train_batch_size":
            trainer._train_batch_size = trainer.args.train_batch_size
        elif name == "gradient_accumulation_steps":
            trainer.accelerator.gradient_accumulation_steps = value

    def train(self, resume_from: Path | Literal[True] | None) -> None:
        """Train to the end."""
        self.trainer.train(resume_from_checkpoint=str(resume_from) if isinstance(resume_from, Path) else resume_from)

    def arguments(self) -> dict[str, Any]:
        """The training arguments as plain values, without the output directory."""
        return {name: value for name, value in self.trainer.args.to_dict().items() if name not in _NO_ARGUMENTS}

    def finished_steps(self) -> int:
        """Optimizer steps as the trainer counts them."""
        return self.trainer.state.global_step

    @staticmethod
    def checkpoint(output_dir: Path, step: int) -> Path:
        """The directory that the Trainer writes after `step`."""
        return output_dir / f"checkpoint-{step}"

    def newest(self, output_dir: Path) -> Literal[True] | None:
        """`resume_from_checkpoint=True`: the trainer looks for the newest checkpoint in its output directory."""
        return True if get_last_checkpoint(str(output_dir)) is not None else None

    def absent_files(self, checkpoint: Path) -> dict[str, tuple[str, ...]]:
        """Files that the Trainer looks for in a checkpoint and that are not there -> what they hold."""
        if self.trainer.is_deepspeed_enabled or self.trainer.is_fsdp_enabled:
            return {}
        wanted = dict(_FILES)
        if self.trainer.args.world_size > 1:
            wanted = {name.replace("rng_state.pth", "rng_state_0.pth"): held for name, held in wanted.items()}
        return {name: held for name, held in wanted.items() if not (checkpoint / name).exists()}

    # --- reading ----------------------------------------------------------------------------------------------------

    def live(self) -> LiveState:
        """The live objects of the trainer."""
        trainer = self.trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        optimizers = {"optimizer": unwrapped(trainer.optimizer)} if trainer.optimizer is not None else {}
        schedulers = {"lr_scheduler": unwrapped(trainer.lr_scheduler)} if trainer.lr_scheduler is not None else {}
        for name, value in vars(trainer).items():
            inner = unwrapped(value)
            if isinstance(inner, torch.optim.Optimizer) and all(inner is not known for known in optimizers.values()):
                optimizers[name] = inner
            elif isinstance(inner, LRScheduler) and all(inner is not known for known in schedulers.values()):
                schedulers[name] = inner
        handler: CallbackHandler = trainer.callback_handler
        callbacks = [callback for callback in handler.callbacks if not isinstance(callback, Observes)]
        return LiveState(
            models={"model": model},
            optimizers=optimizers,
            schedulers=schedulers,
            scaler=trainer.accelerator.scaler,
            counters={name: getattr(trainer.state, name) for name in _COUNTERS if hasattr(trainer.state, name)},
            callbacks={
                _numbered(callbacks, callback): callback.state()
                for callback in callbacks
                if isinstance(callback, ExportableState)
            },
            roots=self._roots(model, optimizers, schedulers, callbacks),
        )

    def _roots(
        self, model: torch.nn.Module, optimizers: dict[str, Any], schedulers: dict[str, Any], callbacks: list[Any]
    ) -> dict[str, Any]:
        trainer = self.trainer
        known: list[Any] = [trainer, trainer.args, trainer.state, trainer.accelerator, trainer.control]
        known += [*model.parameters(), *model.buffers()]
        for optimizer in optimizers.values():
            known += [optimizer.state, optimizer.param_groups, optimizer.defaults]
        roots: dict[str, Any] = {
            "__known__": known,
            "__paths__": {str(self.output_dir): "{output_dir}"},
            "__owners__": {
                "trainer": trainer,
                "arguments": trainer.args,
                "trainer.state": trainer.state,
                "trainer.control": trainer.control,
            },
            "model": model,
        }
        for name, value in vars(trainer.args).items():
            if name not in _NO_ARGUMENTS and not name.startswith("_"):
                roots[f"arguments.{name}"] = value
        for callback in callbacks:
            roots[f"callbacks.{_numbered(callbacks, callback)}"] = callback
        for name, value in vars(trainer).items():
            if name not in _NOT_ROOTS and not name.startswith("__"):
                roots[f"trainer.{name}"] = value
        for owner, known_names in (("state", _STATE_FIELDS), ("control", _CONTROL_FIELDS)):
            # What the target has hung on the Trainer's own objects, which save their fields and nothing else.
            for name, value in vars(getattr(trainer, owner)).items():
                if name not in known_names:
                    roots[f"trainer.{owner}.{name}"] = value
        roots["train_dataloader"] = getattr(trainer.callback_handler, "train_dataloader", None)
        roots |= optimizers | schedulers
        roots["trainer class"] = type(trainer)
        roots["module globals"] = self.entry
        return roots

    def put_counters(self, counters: Mapping[str, Any]) -> None:
        """Set counters of the trainer's state."""
        for name, value in counters.items():
            setattr(self.trainer.state, name, value)


class Observes(TrainerCallback):
    """A callback that reads the run, and is no part of its state."""


class TrainerEvents(Observes):
    """What the Trainer tells while it trains, passed on to the recorder."""

    def __init__(
        self,
        adapter: TrainerAdapter,
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
        self.fresh_step = False
        self.micro = 0
        self.saved: set[int] = set()
        self.wanted: int | None = None
        ids.on_training_iterator = recorder.epoch_starts

    # Wrapped methods: the first argument is the method of the trainer, with whatever a subclass made of it.

    def training_step(self, original: Callable[..., Any], model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Around one forward and backward of a micro-batch."""
        trainer, recorder = self.adapter.trainer, self.recorder
        step = trainer.state.global_step + 1
        if self.fresh_step or not recorder.started:
            self.fresh_step, self.micro = False, 0
            recorder.step_starts(step)
        ids = self.ids.next_ids()
        inputs = self.adapter.fed(step, self.micro, inputs)
        recorder.batch(inputs, ids)
        loss = original(model, inputs, *args, **kwargs)
        recorder.loss(loss)
        self.micro += 1
        if trainer.accelerator.gradient_state.sync_gradients:
            recorder.gradients()
        return loss

    def maybe_save(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around the decision to log, evaluate and save."""
        trainer = self.adapter.trainer
        if not self.saving.own:
            trainer.control.should_save = False
        result = original(*args, **kwargs)
        step = trainer.state.global_step
        if self.wanted == step and step not in self.saved:
            # `save_strategy="best"` decides after us; the checkpoint at a resume point is written all the same.
            model: Any = trainer.model_wrapped
            trainer._save_checkpoint(model, None)
            trainer.control = trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
        return result

    def train_dataloader(self, original: Callable[..., Any]) -> Any:
        """Around the making of the training loader: remember its data set, so that its iterators are recognised."""
        loader = original()
        self.ids.watch(loader)
        return loader

    def evaluate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around an evaluation: its loaders are not training loaders, even over the same data."""
        with self.ids.paused():
            return original(*args, **kwargs)

    # Callback events.

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The length of the run is known."""
        loader: Any = getattr(self.adapter.trainer.callback_handler, "train_dataloader", None)
        try:
            per_epoch = max(1, math.ceil(len(loader) / args.gradient_accumulation_steps))
        except TypeError:
            per_epoch = None
        self.begin(Length(max_steps=state.max_steps, steps_per_epoch=per_epoch))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The next call of training_step starts an optimizer step."""
        self.fresh_step = True

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The update is about to happen."""
        groups = unwrapped(self.adapter.trainer.optimizer).param_groups
        self.recorder.update([group["lr"] for group in groups])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """The update is done; ask for a checkpoint at a resume point inside an epoch."""
        self.recorder.step_ends(state.global_step, state.epoch)
        if state.global_step in self.saving.at:
            self.wanted = None
            at_boundary = state.epoch is not None and float(state.epoch).is_integer()
            if not at_boundary and not control.should_save:
                control.should_save = True
            if not at_boundary:
                self.wanted = state.global_step
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """At an epoch boundary the checkpoint is written as `save_strategy="epoch"` does: after the epoch's end."""
        if state.global_step in self.saving.at and state.global_step not in self.saved:
            control.should_save = True
            self.wanted = state.global_step
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint was written."""
        self.saved.add(state.global_step)
        if self.wanted != state.global_step:
            self.recorder.event("save")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """An evaluation has ended."""
        numbers = {
            name: value
            for name, value in (metrics or {}).items()
            if isinstance(value, int | float) and not any(word in name for word in _MACHINE_METRICS)
        }
        self.recorder.event("evaluate", metrics=numbers)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Numbers were logged."""
        numbers = {
            name: value
            for name, value in (logs or {}).items()
            if isinstance(value, int | float) and not any(word in name for word in _MACHINE_METRICS)
        }
        self.recorder.event("log", logs=numbers)


def _numbered(callbacks: list[Any], callback: Any) -> str:
    """The class name of a callback, numbered where there are several of a class."""
    same = [other for other in callbacks if type(other) is type(callback)]
    name = type(callback).__name__
    return name if len(same) == 1 else f"{name}[{next(i for i, other in enumerate(same) if other is callback)}]"
