"""Losses with state of their own: parameters that are trained, yet not part of the model."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import LABELS, KeepsEverything, TinyTrainer, make_trainer


class Temperature(torch.nn.Module):
    """Cross entropy of logits divided by a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs.logits * self.log_scale.exp(), labels)

    def keep(self) -> dict[str, Tensor]:
        return self.state_dict()

    def put_back(self, kept: dict[str, Tensor]) -> None:
        self.load_state_dict(kept)


class TrainsItsLoss(TinyTrainer):
    """Optimises the parameters of its loss as well; the checkpoint holds their moments, but not them."""

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and isinstance(self.compute_loss_func, torch.nn.Module):
            optimizer.add_param_group({"params": list(self.compute_loss_func.parameters()), "weight_decay": 0.0})
        return optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(self.compute_loss_func, torch.nn.Module):
            self.compute_loss_func.zero_grad()
        return super().training_step(*args, **kwargs)


class TrainsAndKeepsItsLoss(TrainsItsLoss, KeepsEverything):
    """Saves the parameters of the loss too."""


def loss_parameter_outside_checkpoint(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TrainsItsLoss, loss=Temperature())


def loss_parameter_outside_checkpoint_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TrainsAndKeepsItsLoss, loss=Temperature())


class Centres(Temperature):
    """Draws logits towards trained centres of their classes."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = torch.nn.Parameter(torch.eye(LABELS))

    def forward(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        pull = (outputs.logits - self.centres[labels]).square().mean()
        return super().forward(outputs, labels) + pull


class LoadsIntoAnotherLoss(TrainsAndKeepsItsLoss):
    """Loads the parameters of the loss into a new loss, while the optimizer holds those of the old one."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.compute_loss_func = copy.deepcopy(self.compute_loss_func)


def loss_loaded_into_another_object(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsIntoAnotherLoss, loss=Centres())


def loss_loaded_into_another_object_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TrainsAndKeepsItsLoss, loss=Centres())


class Prior(Temperature):
    """Weighs classes by how often it has seen them, a buffer of the loss."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.ones(LABELS))

    def forward(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        self.seen += torch.bincount(labels, minlength=LABELS)
        return torch.nn.functional.cross_entropy(outputs.logits - self.seen.log(), labels)


def loss_buffer_outside_checkpoint(output_dir: str) -> Trainer:
    return make_trainer(output_dir, loss=Prior())


def loss_buffer_outside_checkpoint_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, KeepsEverything, loss=Prior())


class StepsASecondOptimizer(TinyTrainer):
    """Trains the temperature of its loss by an optimizer of its own, and saves the temperature only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        loss: Any = self.compute_loss_func
        self.second = torch.optim.Adam(loss.parameters(), lr=0.05)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self.second.zero_grad()
        loss = super().training_step(*args, **kwargs)
        self.second.step()
        return loss


class StepsASecondOptimizerAndKeepsTheLoss(StepsASecondOptimizer, KeepsEverything):
    """Saves the temperature."""


class KeepsTheSecondOptimizer(StepsASecondOptimizerAndKeepsTheLoss):
    """Saves the state of the second optimizer too."""

    def keep(self) -> dict[str, Any]:
        return self.second.state_dict()

    def put_back(self, kept: dict[str, Any]) -> None:
        self.second.load_state_dict(kept)


def second_optimizer_not_saved(output_dir: str) -> Trainer:
    return make_trainer(output_dir, StepsASecondOptimizerAndKeepsTheLoss, loss=Temperature())


def second_optimizer_not_saved_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, KeepsTheSecondOptimizer, loss=Temperature())
