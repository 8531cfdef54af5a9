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


class LeavesItsFlagSet(TinyTrainer):
    """Finds the flag of a skipped step set after a resume, so that the schedule misses the step."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        super()._load_scaler(checkpoint)
        self.optimizer._is_overflow = True

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.first_step = getattr(self, "first_step", self.state.global_step)
        if self.state.global_step > self.first_step:
            self.optimizer._is_overflow = False
        return loss


class ClearsItsFlag(LeavesItsFlagSet):
    """Clears the flag before the first step."""

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self.optimizer._is_overflow = False
        return super().training_step(*args, **kwargs)


def first_step_counts_as_skipped(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LeavesItsFlagSet)


def first_step_counts_as_skipped_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ClearsItsFlag)


class ScalesByANumber(TinyBert):
    """Scales its loss by a number that grows with every call."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.scale = 1.0

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.scale *= 1.1
        return super().loss_of(logits, labels) * self.scale


class ScalesByABuffer(TinyBert):
    """Keeps the scale in a buffer."""

    scale: Tensor

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.tensor(1.0))

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.scale.mul_(1.1)
        return super().loss_of(logits, labels) * self.scale


def scale_of_the_loss_as_number(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(ScalesByANumber), max_grad_norm=0.0)


def scale_of_the_loss_as_number_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(ScalesByABuffer), max_grad_norm=0.0)
