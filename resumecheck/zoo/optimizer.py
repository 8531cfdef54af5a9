"""Optimizer state that is not restored, or not to where it belongs."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer

from resumecheck.zoo.setups import TinyTrainer, make_trainer


class ChangesStateWhenLoading(TinyTrainer):
    """Changes the optimizer's state after it was loaded; what is changed is up to `change`."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for state in self.optimizer.state.values():
                self.change(state)

    def change(self, state: dict[str, Any]) -> None:
        """Change the state of one parameter."""


class RoundsMoments(ChangesStateWhenLoading):
    """Takes the moments through bfloat16."""

    through = torch.bfloat16

    def change(self, state: dict[str, Any]) -> None:
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name].to(self.through).to(torch.float32)


class TakesMomentsThroughDouble(RoundsMoments):
    """Takes the moments through a type that holds them exactly."""

    through = torch.float64


def moments_rounded_to_bf16(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RoundsMoments)


def moments_rounded_to_bf16_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesMomentsThroughDouble)
