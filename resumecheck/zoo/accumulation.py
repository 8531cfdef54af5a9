"""Gradients that are gathered over several steps, and lost between two of them."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import KeepsEverything, TinyBert, TinyTrainer, make_model, make_trainer


class GathersGradients(TinyBert):
    """Keeps its gradients until the optimizer has used them."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The Trainer empties the gradients after every step; here the optimizer does, after every third."""


class StepsEveryThird(torch.optim.AdamW):
    """Makes a step with the gradients of three calls; the place in the window is an option of the group."""

    def place(self) -> int:
        return self.param_groups[0]["place"]

    def set_place(self, place: int) -> None:
        self.param_groups[0]["place"] = place

    def step(self, closure: Any = None) -> None:  # ty: ignore[incompatible-method-override]
        self.set_place(self.place() + 1)
        if self.place() == 3:
            super().step(closure)
            self.zero_grad()
            self.set_place(0)


class KeepsGradients(StepsEveryThird):
    """Can save the gradients gathered so far."""

    def keep(self) -> list[Tensor | None]:
        return [parameter.grad for parameter in self.param_groups[0]["params"]]

    def put_back(self, kept: list[Tensor | None]) -> None:
        for parameter, gradient in zip(self.param_groups[0]["params"], kept, strict=True):
            parameter.grad = gradient


class CountsItsPlace(KeepsGradients):
    """Saves the gradients, and counts the place in the window by an attribute."""

    calls = 0

    def place(self) -> int:
        return self.calls

    def set_place(self, place: int) -> None:
        self.calls = place


def _build(output_dir: str, trainer: type[Trainer], optimizer: type[StepsEveryThird]) -> Trainer:
    model = make_model(GathersGradients)
    group = {"params": list(model.parameters()), "place": 0}
    return make_trainer(output_dir, trainer, model=model, optimizer=optimizer([group], lr=5e-3), max_grad_norm=0.0)


def gathered_gradients_lost(output_dir: str) -> Trainer:
    return _build(output_dir, TinyTrainer, StepsEveryThird)


def gathered_gradients_lost_twin(output_dir: str) -> Trainer:
    return _build(output_dir, KeepsEverything, KeepsGradients)


def place_in_the_window_lost(output_dir: str) -> Trainer:
    return _build(output_dir, KeepsEverything, CountsItsPlace)


def place_in_the_window_lost_twin(output_dir: str) -> Trainer:
    return _build(output_dir, KeepsEverything, KeepsGradients)


class FeedsErrorsBack(TinyTrainer):
    """Rounds its gradients and adds to each the error of the last; the errors are in no checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.errors: dict[str, Tensor] = {}

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        for name, parameter in self.model.named_parameters():
            whole = parameter.grad + self.errors.get(name, 0.0)
            parameter.grad = whole.bfloat16().float()
            self.errors[name] = whole - parameter.grad
        return loss


class FeedsErrorsBackAndKeepsThem(FeedsErrorsBack, KeepsEverything):
    """Saves the errors."""

    def keep(self) -> dict[str, Tensor]:
        return self.errors

    def put_back(self, kept: dict[str, Tensor]) -> None:
        self.errors = kept


def errors_of_rounding_lost(output_dir: str) -> Trainer:
    return make_trainer(output_dir, FeedsErrorsBack)


def errors_of_rounding_lost_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, FeedsErrorsBackAndKeepsThem)
