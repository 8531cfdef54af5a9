"""Saving that changes the run that saves."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from resumecheck.zoo.setups import TinyTrainer, make_trainer


class DrawsWhenSaving(TinyTrainer):
    """Names each checkpoint by a number from torch's global stream."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        Path(self.args.output_dir or ".", "name.txt").write_text(f"{self.number():.6f}", encoding="utf-8")

    def number(self) -> float:
        return torch.rand(1).item()


class DrawsFromItsOwnWhenSaving(DrawsWhenSaving):
    """Draws the number from a generator of its own."""

    def number(self) -> float:
        return torch.rand(1, generator=torch.Generator().manual_seed(1)).item()


def saving_draws_from_torch_stream(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DrawsWhenSaving)


def saving_draws_from_torch_stream_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DrawsFromItsOwnWhenSaving)
