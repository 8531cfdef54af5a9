"""Gradient scalers that are not restored: the first resumed steps overflow and are left out."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, Trainer

from resumecheck.zoo.setups import TinyBert, TinyTrainer, make_model, make_trainer


class ScalesGradients(TinyTrainer):
    """Scales its loss by torch's scaler on the CPU, so high at first that two steps overflow."""

    loads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=3)
        self.accelerator.scaler = self.scaler

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) * 4

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        self.scaler.unscale_(self.optimizer.optimizer)
        return super()._clip_grad_norm(model)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.loads:
            super()._load_scaler(checkpoint)


class ScalesAfresh(ScalesGradients):
    """Does not load the scaler."""

    loads = False


def scaler_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ScalesAfresh)


def scaler_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ScalesGradients)


class ForgetsWhenItLastOverflowed(ScalesGradients):
    """Loads the scale without the count of good steps, so that it grows, and overflows, later."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        super()._load_scaler(checkpoint)
        if checkpoint is not None:
            state = self.scaler.state_dict()
            self.scaler.load_state_dict(state | {"_growth_tracker": 0})


def scaler_growth_count_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ForgetsWhenItLastOverflowed)


def scaler_growth_count_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ScalesGradients, max_grad_norm=0.5)


class LeavesOutTheFirstStep(TinyTrainer):
    """Reports its first step after a resume as skipped, so that the schedule lags by one."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        super()._load_scaler(checkpoint)
        if checkpoint is not None:
            self.optimizer._is_overflow = True

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.state.global_step and self.optimizer._is_overflow and self.skipped:
            self.optimizer._is_overflow = False
        self.skipped = self.optimizer._is_overflow
        return super().training_step(*args, **kwargs)

    skipped = False


class SkipsNothing(LeavesOutTheFirstStep):
    """Loads the scaler as the Trainer does."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        super(LeavesOutTheFirstStep, self)._load_scaler(checkpoint)


def first_step_counts_as_skipped(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LeavesOutTheFirstStep)


def first_step_counts_as_skipped_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsNothing)


class ScalesByANumber(TinyBert):
    """Scales its loss by a number that grows with every call."""

    persistent = False
    scale: Tensor

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.growing = 1.0
        if self.persistent:
            self.register_buffer("scale", torch.tensor(1.0))

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.persistent:
            self.scale.mul_(1.1)
            return super().loss_of(logits, labels) * self.scale
        self.growing *= 1.1
        return super().loss_of(logits, labels) * self.growing


class ScalesByABuffer(ScalesByANumber):
    """Keeps the scale in a buffer."""

    persistent = True


def scale_of_the_loss_as_number(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(ScalesByANumber), max_grad_norm=0.0)


def scale_of_the_loss_as_number_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(ScalesByABuffer), max_grad_norm=0.0)
