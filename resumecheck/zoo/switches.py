"""Things that are switched at one moment of a run, which a resumed run never passes."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from resumecheck.zoo.setups import TinyBert, make_model, make_trainer


class LowersDropout(TrainerCallback):
    """Lowers the dropout of the head after each step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        dropout = kwargs["model"].dropout
        dropout.p = self.next_p(dropout.p, state.global_step)

    def next_p(self, p: float, step: int) -> float:
        return p * 0.9


class SetsDropout(LowersDropout):
    """Sets the dropout by the number of the step."""

    def next_p(self, p: float, step: int) -> float:
        return 0.1 * 0.9**step


def dropout_lowered_by_callback(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[LowersDropout()])


def dropout_lowered_by_callback_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[SetsDropout()])


class ClipsFromStepThree(TrainerCallback):
    """Hooks a clipping of the pooled output into the model when step 3 begins."""

    hooked = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.is_time(state.global_step) and not self.hooked:
            self.hooked = True
            kwargs["model"].bert.pooler.register_forward_hook(_clip)

    def is_time(self, step: int) -> bool:
        return step == 3


class ClipsFromStepThreeOn(ClipsFromStepThree):
    """Hooks it in when step 3 or a later one begins."""

    def is_time(self, step: int) -> bool:
        return step >= 3


def _clip(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.clamp(-0.1, 0.1)


def hook_set_at_step_three(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[ClipsFromStepThree()])


def hook_set_at_step_three_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[ClipsFromStepThreeOn()])


class Unfreezes(TrainerCallback):
    """Trains the encoder from step 3."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.is_time(state.global_step):
            kwargs["model"].bert.requires_grad_(True)

    def is_time(self, step: int) -> bool:
        return step == 3


class UnfreezesFromThen(Unfreezes):
    """Trains the encoder at step 3 and later."""

    def is_time(self, step: int) -> bool:
        return step >= 3


def _frozen(output_dir: str, callback: TrainerCallback) -> Trainer:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.bert.requires_grad_(False)
    return make_trainer(output_dir, model=model, optimizer=optimizer, callbacks=[callback])


def unfrozen_at_step_three(output_dir: str) -> Trainer:
    return _frozen(output_dir, Unfreezes())


def unfrozen_at_step_three_twin(output_dir: str) -> Trainer:
    return _frozen(output_dir, UnfreezesFromThen())


class SwitchesDefaultType(TrainerCallback):
    """Makes float64 the type of new tensors when step 3 begins."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            torch.set_default_dtype(torch.float64)


class WeighsClasses(TinyBert):
    """Weighs the classes of its loss by a new tensor."""

    dtype_of_weights: torch.dtype | None = None

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = torch.tensor([1.0, 1.1, 1.2], dtype=self.dtype_of_weights)
        return torch.nn.functional.cross_entropy(logits.to(weights.dtype), labels, weights)


class WeighsClassesInFloat32(WeighsClasses):
    """Names the type of the tensor."""

    dtype_of_weights = torch.float32


def default_type_switched(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(WeighsClasses), callbacks=[SwitchesDefaultType()])


def default_type_switched_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(WeighsClassesInFloat32), callbacks=[SwitchesDefaultType()])
