"""State that no checkpoint holds, in the places where Python lets one hide it."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from torch import Tensor
from transformers import BertConfig, Trainer

from resumecheck.zoo.setups import TinyBert, make_model, make_trainer


class CountsCalls(TinyBert):
    """Raises its loss with a count of its calls."""

    effect = 0.01

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.calls = 0

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return super().loss_of(logits, labels) * (1 + self.effect * self.calls)


class CountsCallsForDisplay(CountsCalls):
    """Counts too, with no effect on the loss."""

    effect = 0.0


def python_counter_in_model(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CountsCalls))


def python_counter_in_model_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CountsCallsForDisplay))
