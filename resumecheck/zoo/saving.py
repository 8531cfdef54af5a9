"""Saving that changes the run that saves."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.content import IgnoresTheIndex
from resumecheck.zoo.setups import FewRows, KeepsEverything, Rows, TinyTrainer, make_model, make_trainer
from resumecheck.zoo.streams import DrawsFromPython


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


class DrawsFromPythonWhenSaving(DrawsWhenSaving):
    """Names each checkpoint by a number from Python's global stream."""

    def number(self) -> float:
        return random.random()


class DrawsFromTheSystemWhenSaving(DrawsWhenSaving):
    """Draws the number from the operating system."""

    def number(self) -> float:
        return random.SystemRandom().random()


def saving_draws_from_python_stream(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DrawsFromPythonWhenSaving, model=make_model(DrawsFromPython))


def saving_draws_from_python_stream_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DrawsFromTheSystemWhenSaving, model=make_model(DrawsFromPython))


class PassesOverDataWhenSaving(TinyTrainer):
    """Notes the loss on other rows beside each checkpoint; a pass over a loader draws a seed from torch's stream."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        loader = torch.utils.data.DataLoader(FewRows(), batch_size=4, generator=self.generator())
        self.model.eval()
        with torch.no_grad():
            losses = [float(self.model(**batch).loss) for batch in loader]
        Path(self.args.output_dir or ".", "losses.txt").write_text(str(losses), encoding="utf-8")

    def generator(self) -> torch.Generator | None:
        return None


class PassesWithItsOwnGenerator(PassesOverDataWhenSaving):
    """Gives the loader a generator to draw from."""

    def generator(self) -> torch.Generator | None:
        return torch.Generator().manual_seed(1)


def saving_passes_over_data(output_dir: str) -> Trainer:
    return make_trainer(output_dir, PassesOverDataWhenSaving)


def saving_passes_over_data_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, PassesWithItsOwnGenerator)


class SavesMeanWeights(TinyTrainer):
    """Puts a running mean of the weights in place to save it, and leaves it there."""

    takes_out = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.means: dict[str, Tensor] = {}

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        for name, tensor in self.model.state_dict().items():
            self.means.setdefault(name, tensor.clone()).lerp_(tensor, 0.5)
        return super().training_step(*args, **kwargs)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.means)
        if self.takes_out:
            self.model.save_pretrained(Path(self.args.output_dir or ".") / "mean")
            self.model.load_state_dict(before)
        super()._save_checkpoint(model, trial)


class SavesMeanWeightsAside(SavesMeanWeights, KeepsEverything):
    """Saves the mean in a directory of its own and in the checkpoint, and puts the weights back."""

    takes_out = True

    def keep(self) -> dict[str, Tensor]:
        return self.means

    def put_back(self, kept: dict[str, Tensor]) -> None:
        self.means = kept


def saving_leaves_mean_weights_in(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesMeanWeights)


def saving_leaves_mean_weights_in_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesMeanWeightsAside)


class FreesMoments(TinyTrainer):
    """Frees the optimizer's state once it is saved."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        self.optimizer.state.clear()


class ReplacesMoments(TinyTrainer):
    """Replaces the optimizer's state by what it saved."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        self.optimizer.load_state_dict(torch.load(Path(output_dir) / "optimizer.pt", weights_only=True))


def saving_clears_moments(output_dir: str) -> Trainer:
    return make_trainer(output_dir, FreesMoments)


def saving_clears_moments_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ReplacesMoments)


class TakesWeightsThrough(TinyTrainer):
    """Takes the model itself, and not a copy, through the narrow type that it saves."""

    through = torch.float16

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        self.model.to(self.through)
        super()._save(output_dir, state_dict)
        self.model.to(torch.float32)


class TakesWeightsThroughDouble(TakesWeightsThrough):
    """Takes the model through a wider type."""

    through = torch.float64


def saving_rounds_weights(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesWeightsThrough)


def saving_rounds_weights_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesWeightsThroughDouble)


class StepsItsScheduleWhenSaving(TinyTrainer):
    """Steps the schedule to note the next rate beside the checkpoint."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        Path(self.args.output_dir or ".", "rate.txt").write_text(str(self.next_rate()), encoding="utf-8")

    def next_rate(self) -> float:
        self.lr_scheduler.step()
        return self.lr_scheduler.get_last_lr()[0]


class AsksItsScheduleWhenSaving(StepsItsScheduleWhenSaving):
    """Asks the schedule for its rate."""

    def next_rate(self) -> float:
        return self.lr_scheduler.get_last_lr()[0]


def saving_steps_the_schedule(output_dir: str) -> Trainer:
    return make_trainer(output_dir, StepsItsScheduleWhenSaving)


def saving_steps_the_schedule_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, AsksItsScheduleWhenSaving)


class ShowsARowWhenSaving(TinyTrainer):
    """Writes an example row beside each checkpoint."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        Path(self.args.output_dir or ".", "example.txt").write_text(str(self.train_dataset[0]), encoding="utf-8")


def saving_takes_a_row(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ShowsARowWhenSaving, rows=IgnoresTheIndex())


def saving_takes_a_row_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ShowsARowWhenSaving, rows=Rows())
