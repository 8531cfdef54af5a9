"""Callbacks whose state does not come back."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from resumecheck.zoo.setups import FewRows, KeepsEverything, make_trainer


def _flat(prediction: Any) -> dict[str, float]:
    """A metric that never improves, so that patience runs out."""
    return {"flat": 1.0}


def _stopping_early(output_dir: str, trainer: type[Trainer] = Trainer, **changes: Any) -> Trainer:
    return make_trainer(
        output_dir,
        trainer,
        eval_rows=FewRows(),
        metrics=_flat,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=8)],
        metric_for_best_model="eval_flat",
        greater_is_better=True,
        eval_strategy="steps",
        eval_steps=1,
        **changes,
    )


def patience_starts_again(output_dir: str) -> Trainer:
    return _stopping_early(output_dir)


def patience_starts_again_twin(output_dir: str) -> Trainer:
    return _stopping_early(output_dir, restore_callback_states_from_checkpoint=True)


class Drifts(TrainerCallback, ExportableState):
    """Scales gradients by a count of its steps, times its rate."""

    def __init__(self, rate: float = 0.01) -> None:
        self.rate = rate
        self.steps = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1
        for parameter in kwargs["model"].parameters():
            parameter.grad *= 1 + self.rate * self.steps

    def state(self) -> dict[str, Any]:
        return {"args": {"rate": self.rate}, "attributes": {"steps": self.steps}}


class DriftsToo(Drifts):
    """The same under another name."""


def two_callbacks_of_one_class(output_dir: str) -> Trainer:
    callbacks = [Drifts(0.01), Drifts(0.05)]
    return make_trainer(output_dir, callbacks=callbacks, restore_callback_states_from_checkpoint=True)


def two_callbacks_of_one_class_twin(output_dir: str) -> Trainer:
    callbacks = [Drifts(0.01), DriftsToo(0.05)]
    return make_trainer(output_dir, callbacks=callbacks, restore_callback_states_from_checkpoint=True)


class DriftsAndExportsItsStart(Drifts):
    """Exports the state that it had when it was made."""

    def __init__(self, rate: float = 0.05) -> None:
        super().__init__(rate)
        self.exported = super().state()

    def state(self) -> dict[str, Any]:
        return self.exported


def callback_exports_its_start(output_dir: str) -> Trainer:
    callbacks = [DriftsAndExportsItsStart()]
    return make_trainer(output_dir, callbacks=callbacks, restore_callback_states_from_checkpoint=True)


def callback_exports_its_start_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[Drifts(0.05)], restore_callback_states_from_checkpoint=True)


class AveragesWeights(TrainerCallback):
    """Follows the weights with a running mean, and puts the mean in place when training ends."""

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name, parameter in kwargs["model"].named_parameters():
            self.means.setdefault(name, parameter.detach().clone()).lerp_(parameter.detach(), 0.1)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            for name, parameter in kwargs["model"].named_parameters():
                parameter.copy_(self.means[name])

    def keep(self) -> dict[str, Tensor]:
        return self.means

    def put_back(self, kept: dict[str, Tensor]) -> None:
        self.means = kept


def mean_weights_put_in_at_the_end(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[AveragesWeights()])


def mean_weights_put_in_at_the_end_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, KeepsEverything, callbacks=[AveragesWeights()])


class StopsAfterTen(TrainerCallback):
    """Stops after ten steps that it counts itself."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1
        if self.reached(state.global_step) >= 10:
            control.should_training_stop = True

    def reached(self, global_step: int) -> int:
        return self.steps


class StopsAtStepTen(StopsAfterTen):
    """Counts too, and stops by the trainer's own count."""

    def reached(self, global_step: int) -> int:
        return global_step


def stop_counts_its_own_steps(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[StopsAfterTen()])


def stop_counts_its_own_steps_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[StopsAtStepTen()])


class DampsJumps(TrainerCallback):
    """Scales gradients down after a step whose gradients were larger than any before."""

    effect = 0.5

    def __init__(self) -> None:
        self.largest = 0.0
        self.shown = 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        gradients = [parameter.grad for parameter in kwargs["model"].parameters()]
        size = max(float(gradient.abs().max()) for gradient in gradients)
        if size > self.largest:
            self.largest = size
            for gradient in gradients:
                gradient.mul_(self.effect)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.shown = self.largest


class ShowsJumps(DampsJumps):
    """Notes the largest gradient for a log line."""

    effect = 1.0


def largest_gradient_forgotten(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[DampsJumps()])


def largest_gradient_forgotten_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[ShowsJumps()])


class DecaysByTheLog(TrainerCallback):
    """Sets the weight decay, which a checkpoint holds, from the loss that was logged last."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            for group in kwargs["optimizer"].param_groups:
                group["weight_decay"] = logs["loss"]


def decay_follows_the_logged_loss(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[DecaysByTheLog()])


def decay_follows_the_logged_loss_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[DecaysByTheLog()], logging_steps=1)
