"""Drives and reads a Lightning `Trainer`, of `lightning` or of `pytorch_lightning`, through its callbacks and hooks.

A factory returns `trainer, module` or `trainer, module, data`, with keyword arguments for `fit` as a mapping at the
end where there are some. One callback is added, which comes last; of the instances `strategy.training_step`,
`strategy.load_checkpoint`, `trainer.save_checkpoint` and the `run` of two loops are wrapped. A checkpoint is what
`trainer.save_checkpoint` writes; it is loaded by `fit(ckpt_path=...)`.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from resumecheck.adapters.contract import Length, Saving, argument_from_text, newest_numbered
from resumecheck.adapters.lightning_events import LightningEvents, TrainingIds, wrap
from resumecheck.adapters.recorder import Recorder
from resumecheck.errors import UsageError
from resumecheck.state.capture import LiveState

#: The packages that Lightning is installed as.
PACKAGES = ("lightning.pytorch", "pytorch_lightning")
#: Arguments of a Trainer that the run depends on -> where they are kept.
_ARGUMENTS = {
    "max_epochs": "fit_loop.max_epochs",
    "max_steps": "fit_loop.epoch_loop.max_steps",
    "min_epochs": "fit_loop.min_epochs",
    "min_steps": "fit_loop.epoch_loop.min_steps",
    "accumulate_grad_batches": "accumulate_grad_batches",
    "gradient_clip_val": "gradient_clip_val",
    "gradient_clip_algorithm": "gradient_clip_algorithm",
    "limit_train_batches": "limit_train_batches",
    "limit_val_batches": "limit_val_batches",
    "val_check_interval": "val_check_interval",
    "check_val_every_n_epoch": "check_val_every_n_epoch",
    "overfit_batches": "overfit_batches",
    "precision": "precision",
}
#: What a factory may say by name.
_OF_FIT = frozenset({"train_dataloaders", "val_dataloaders", "datamodule", "weights_only", "ckpt_path"})
#: The files of a checkpoint: what Lightning writes, and the output directory at that time.
_STATE_FILE, _PLACE_FILE = "lightning.ckpt", "output_dir.txt"


def lightning_package(built: Any) -> str | None:
    """The package of the Lightning Trainer that a factory returned, alone or first in a tuple; None for others."""
    first = built[0] if isinstance(built, tuple) and built else built
    for name in PACKAGES:
        package = sys.modules.get(name)
        if package is not None and isinstance(first, package.Trainer):
            return name
    return None


class LightningAdapter:
    """The adapter for a Lightning `Trainer`.

    Raises:
        UsageError: what the factory returned cannot be trained, or writes outside its output directory.
    """

    name = "lightning"

    def __init__(self, built: Any, output_dir: Path, target: str = "the target") -> None:
        package = lightning_package(built)
        assert package is not None
        self.package: Any = importlib.import_module(package)
        self.trainer, self.arguments_of_fit = _read(built, self.package, target)
        self.module: Any = self.arguments_of_fit["model"]
        self.output_dir = output_dir
        self.overridden: list[str] = []
        self.entry: Any = None
        self._batches: Callable[[int, int], Any] | None = None
        self._done = 0
        trainer = self.trainer
        if trainer.world_size > 1:
            raise UsageError(f"{target} trains in {trainer.world_size} processes; give the Trainer devices=1")
        writes = trainer.loggers or trainer.checkpoint_callbacks
        if writes and not Path(trainer.default_root_dir).resolve().is_relative_to(output_dir.resolve()):
            raise UsageError(
                f"{target}: the Trainer writes to {trainer.default_root_dir}, where runs would meet each other.\n"
                "Give it default_root_dir=output_dir, the argument of the factory."
            )

    # --- driving ----------------------------------------------------------------------------------------------------

    def attach(self, recorder: Recorder, saving: Saving, begin: Callable[[Length], None]) -> None:
        """Let the recorder see every step; write checkpoints as `saving` says; `begin` gets the length of the run."""
        trainer = self.trainer
        ids = TrainingIds()
        ids.install()
        # Lightning calls checkpoint callbacks last of all, so that they find what the others have done.
        kind: Any = type("_LightningEvents", (LightningEvents, self.package.callbacks.Checkpoint), {})
        events: LightningEvents = kind(self, recorder, saving, begin, ids)
        trainer.callbacks.append(events)
        loop = trainer.fit_loop
        wrap(trainer.strategy, "training_step", events.training_step)
        wrap(trainer.strategy, "load_checkpoint", self._load)
        wrap(trainer, "save_checkpoint", events.save_checkpoint)
        wrap(loop, "run", events.run)
        wrap(loop.epoch_loop.val_loop, "run", events.validate)

    def feed(self, batches: Callable[[int, int], Any]) -> None:
        """Train on `batches(step, micro)` where that is not None."""
        self._batches = batches

    def fed(self, step: int, micro: int, own: Any) -> Any:
        """The batch to train on."""
        batch = self._batches(step, micro) if self._batches is not None else None
        return own if batch is None else batch

    def log_as(self, logged: Mapping[int, list[dict[str, float]]]) -> None:
        """At an epoch's end the metrics of the epoch have these values, for whoever asks for them."""

        def reached(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            theirs = {
                name: value for numbers in logged.get(self.finished_steps(), ()) for name, value in numbers.items()
            }
            for metric in self.trainer.fit_loop.epoch_loop._results.values():
                if metric.meta.name in theirs and metric.meta.on_epoch:
                    metric._computed = torch.tensor(theirs[metric.meta.name])
            return original(*args, **kwargs)

        wrap(self.trainer._logger_connector, "epoch_end_reached", reached)

    def argument(self, name: str, text: str) -> Any:
        """A text converted to the type that an argument of the Trainer, or a hyperparameter of the module, has now."""
        owner, attribute = self._place_of(name)
        return argument_from_text(owner, attribute, text)

    def set_argument(self, name: str, value: Any) -> None:
        """Set one argument of the Trainer or hyperparameter of the module."""
        owner, attribute = self._place_of(name)
        setattr(owner, attribute, value)

    def _place_of(self, name: str) -> tuple[Any, str]:
        if name in _ARGUMENTS:
            inside, _, attribute = _ARGUMENTS[name].rpartition(".")
            return _at(self.trainer, inside), attribute
        return self.module.hparams if name in self.module.hparams else self.trainer, name

    def arguments(self) -> dict[str, Any]:
        """The arguments of the Trainer and the plain hyperparameters of the module, without paths."""
        here = str(self.output_dir)
        plain = {
            name: value
            for name, value in self.module.hparams.items()
            if isinstance(value, bool | int | float | str) and here not in str(value)
        }
        return plain | {name: _at(self.trainer, place) for name, place in _ARGUMENTS.items()}

    def train(self, resume_from: Path | Literal[True] | None) -> None:
        """Train to the end."""
        checkpoint = None
        if isinstance(resume_from, Path):
            self._done = int(resume_from.name.rpartition("-")[2])
            checkpoint = str(resume_from / _STATE_FILE)
        self.trainer.fit(**self.arguments_of_fit, ckpt_path=checkpoint)

    def finished_steps(self) -> int:
        """Optimizer steps as the trainer counts them; where several optimizers are stepped by hand, as they are seen.

        Lightning's `global_step` counts the updates of every optimizer then.
        """
        return self.trainer.global_step if self.module.automatic_optimization else self._done

    def length(self) -> Length:
        """How long the run is, where every step takes as many batches."""
        trainer = self.trainer
        changing = any(isinstance(each, self.package.callbacks.GradientAccumulationScheduler) for each in self._own())
        if changing or not self.module.automatic_optimization or not math.isfinite(trainer.num_training_batches):
            return Length(trainer.max_steps if trainer.max_steps > 0 else None, None)
        per_epoch = max(1, math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))
        ends = [trainer.max_steps] if trainer.max_steps >= 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            ends.append(trainer.max_epochs * per_epoch)
        return Length(min(ends, default=None), per_epoch)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    @staticmethod
    def checkpoint(output_dir: Path, step: int) -> Path:
        """The directory that is written after `step`."""
        return output_dir / f"checkpoint-{step}"

    def newest(self, output_dir: Path) -> Path | None:
        """The checkpoint with the highest step."""
        return newest_numbered(output_dir)

    def absent_files(self, checkpoint: Path) -> dict[str, tuple[str, ...]]:
        """A checkpoint of Lightning is one file."""
        return {}

    def save(self, step: int) -> None:
        """Write the checkpoint of `step`, and where."""
        directory = self.checkpoint(self.output_dir, step)
        self.trainer.save_checkpoint(directory / _STATE_FILE)
        (directory / _PLACE_FILE).write_text(str(self.output_dir), encoding="utf-8")

    def _load(self, original: Callable[..., Any], checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Around loading: a run that is resumed lies in another directory, which a user's does not.

        `ModelCheckpoint` holds paths, and forgets what it has seen where its directory is another one.
        """
        loaded = original(checkpoint_path, *args, **kwargs)
        place = Path(checkpoint_path).with_name(_PLACE_FILE)
        if isinstance(loaded, dict) and "callbacks" in loaded and place.exists():
            loaded["callbacks"] = _moved(loaded["callbacks"], place.read_text(encoding="utf-8"), str(self.output_dir))
        return loaded

    # --- reading ----------------------------------------------------------------------------------------------------

    def live(self) -> LiveState:
        """The live objects of the run."""
        trainer = self.trainer
        optimizers = _named("optimizer", trainer.optimizers)
        schedulers = _named("lr_scheduler", [config.scheduler for config in trainer.lr_scheduler_configs])
        callbacks = self._own()
        states = {_numbered(callbacks, callback): callback.state_dict() for callback in callbacks}
        if trainer.datamodule is not None:
            states["datamodule"] = trainer.datamodule.state_dict()
        return LiveState(
            models={"model": self.module},
            optimizers=optimizers,
            schedulers=schedulers,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            counters={"global_step": trainer.global_step, **_counters(trainer.fit_loop)},
            callbacks={
                name: _moved(state, str(self.output_dir), "{output_dir}") for name, state in states.items() if state
            },
            roots=self._roots(optimizers, schedulers, callbacks),
        )

    def _own(self) -> list[Any]:
        return [callback for callback in self.trainer.callbacks if not isinstance(callback, LightningEvents)]

    def _roots(self, optimizers: dict[str, Any], schedulers: dict[str, Any], callbacks: list[Any]) -> dict[str, Any]:
        trainer = self.trainer
        known: list[Any] = [trainer, *vars(trainer).values(), *self.module.parameters(), *self.module.buffers()]
        for optimizer in optimizers.values():
            known += [optimizer.state, optimizer.param_groups, optimizer.defaults]
        roots: dict[str, Any] = {
            "__known__": [
                each for each in known if each is not None and not isinstance(each, bool | int | float | str)
            ],
            "__paths__": {str(self.output_dir): "{output_dir}"},
            "model": self.module,
        }
        roots |= {f"arguments.{name}": value for name, value in self.arguments().items()}
        for callback in callbacks:
            roots[f"callbacks.{_numbered(callbacks, callback)}"] = callback
        roots["datamodule"] = trainer.datamodule
        roots["train_dataloader"] = trainer.train_dataloader
        roots |= optimizers | schedulers
        # In the epoch in which training goes on, Lightning leaves some things out.
        loops = {"trainer.fit_loop": trainer.fit_loop, "trainer.fit_loop.epoch_loop": trainer.fit_loop.epoch_loop}
        roots["__owners__"] = loops
        roots |= {f"{name}._restarting": loop._restarting for name, loop in loops.items()}
        roots["trainer class"] = type(trainer)
        roots["module globals"] = self.entry
        return roots

    def put_counters(self, counters: Mapping[str, Any]) -> None:
        """Set the counters of the loops."""
        for name, value in counters.items():
            place, _, attribute = name.rpartition(".")
            if place:
                setattr(_at(self.trainer.fit_loop, place), attribute, value)


def _read(built: Any, package: Any, target: str) -> tuple[Any, dict[str, Any]]:
    """The Trainer and the arguments of its `fit`."""
    trainer, *rest = built if isinstance(built, tuple) else (built,)
    keywords = dict(rest.pop()) if rest and isinstance(rest[-1], Mapping) and _OF_FIT.issuperset(rest[-1]) else {}
    arguments = dict(zip(("model", "train_dataloaders", "val_dataloaders"), rest, strict=False)) | keywords
    if not isinstance(arguments.get("model"), package.LightningModule) or len(rest) > 3:
        raise UsageError(
            f"{target} returned a Lightning Trainer without what it trains.\n"
            "Return `trainer, module` or `trainer, module, data`, with keyword arguments of fit as a dict at the end."
        )
    if "ckpt_path" in arguments:
        raise UsageError(f"{target} returned ckpt_path for fit: which checkpoint a run goes on from is resumecheck's")
    return trainer, arguments


def _at(owner: Any, path: str) -> Any:
    """The object under a dotted path."""
    return functools.reduce(getattr, path.split(".") if path else [], owner)


def _named(name: str, objects: list[Any]) -> dict[str, Any]:
    return {name if len(objects) == 1 else f"{name}[{index}]": each for index, each in enumerate(objects)}


def _numbered(callbacks: list[Any], callback: Any) -> str:
    """The class name of a callback, numbered where there are several of a class."""
    same = [each for each in callbacks if type(each) is type(callback)]
    name = type(callback).__name__
    return name if len(same) == 1 else f"{name}[{next(i for i, each in enumerate(same) if each is callback)}]"


def _moved(value: Any, old: str, new: str) -> Any:
    """The same plain values with another directory in every path."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {_moved(key, old, new): _moved(item, old, new) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_moved(item, old, new) for item in value)
    return value


def _counters(loop: Any) -> dict[str, int]:
    """What the training loops count and a checkpoint holds, by its path in the loop."""
    parts = {
        "epoch_progress": loop.epoch_progress,
        "epoch_loop.batch_progress": loop.epoch_loop.batch_progress,
        "epoch_loop.scheduler_progress": loop.epoch_loop.scheduler_progress,
        "epoch_loop.automatic_optimization.optim_progress": loop.epoch_loop.automatic_optimization.optim_progress,
        "epoch_loop.manual_optimization.optim_step_progress": loop.epoch_loop.manual_optimization.optim_step_progress,
    }
    found: dict[str, int] = {"epoch_loop._batches_that_stepped": loop.epoch_loop._batches_that_stepped}

    def walk(name: str, value: Any) -> None:
        for key, item in value.items():
            if isinstance(item, Mapping):
                walk(f"{name}.{key}", item)
            else:
                found[f"{name}.{key}"] = item

    for name, progress in parts.items():
        walk(name, progress.state_dict())
    return found
