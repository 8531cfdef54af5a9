"""Tensors and computations that change their type over a resume."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import TinyTrainer, make_model, make_trainer


class ResumesInBf16(TinyTrainer):
    """Loads the model into bfloat16, and trains on in it."""

    types: tuple[torch.dtype, ...] = (torch.bfloat16,)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for dtype in self.types:
            self.model.to(dtype)


class ResumesThroughDouble(ResumesInBf16):
    """Takes the loaded model through float64, which changes nothing."""

    types = (torch.float64, torch.float32)


def resumed_in_bf16(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ResumesInBf16)


def resumed_in_bf16_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ResumesThroughDouble)


class WideMomentum(torch.optim.Optimizer):
    """Momentum in float32 for parameters in bfloat16; torch's `load_state_dict` casts it to the parameter's type."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # ty: ignore[incompatible-method-override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(parameter, dtype=torch.float32)
                    state["momentum"].mul_(0.9).add_(parameter.grad)
                    parameter.sub_(group["lr"] * state["momentum"])


class WideMomentumKeptWide(WideMomentum):
    """Puts the momentum back as it was saved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        saved = state_dict["state"]
        for number, parameter in enumerate(p for group in self.param_groups for p in group["params"]):
            if number in saved:
                self.state[parameter]["momentum"] = saved[number]["momentum"].clone()


def momentum_cast_to_parameter_type(output_dir: str) -> Trainer:
    model = make_model().to(torch.bfloat16)
    return make_trainer(output_dir, model=model, optimizer=WideMomentum(model.parameters(), 0.1))


def momentum_cast_to_parameter_type_twin(output_dir: str) -> Trainer:
    model = make_model().to(torch.bfloat16)
    return make_trainer(output_dir, model=model, optimizer=WideMomentumKeptWide(model.parameters(), 0.1))


class NarrowOnlyAtTheStart(TinyTrainer):
    """Switches autocast on where training starts at step 0, so that a resumed run computes in float32."""

    narrow = False

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.state.global_step == 0:
            self.narrow = True
        return super().training_step(*args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.narrow):
            return super().compute_loss(*args, **kwargs)


def autocast_only_at_the_start(output_dir: str) -> Trainer:
    return make_trainer(output_dir, NarrowOnlyAtTheStart)


def autocast_only_at_the_start_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, bf16=True)
