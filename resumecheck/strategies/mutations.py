"""Defects that any set-up can carry, each a Trainer class. Those of the zoo that fit any set-up are taken from there.

Most change what a checkpoint brings back (`LosesOnLoading`) or let the loss depend on what no checkpoint holds
(`ScalesItsLoss`); which is which, and which set-ups show it, is told in `catalogue.py`.
"""
# ruff: noqa: D101, D102 - the catalogue tells what each of them does

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from resumecheck.strategies.training import Rows
from resumecheck.zoo.setups import TinyTrainer


class LosesOnLoading(TinyTrainer):
    """Does `lose` once weights, optimizer and schedule are loaded."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            with torch.no_grad():
                self.lose()

    def lose(self) -> None:
        """Lose something."""

    @property
    def inner(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def moments(self) -> list[tuple[dict[str, Any], str]]:
        """Where each tensor of more than one element is in the optimizer's state."""
        states = self.inner.state.values()
        return [(s, name) for s in states for name, value in s.items() if torch.is_tensor(value) and value.numel() > 1]


# --- the optimizer ----------------------------------------------------------------------------------------------------


class DropsTheOptimizer(LosesOnLoading):
    def lose(self) -> None:
        self.inner.state.clear()


class DropsOneParameter(LosesOnLoading):
    def lose(self) -> None:
        if self.inner.state:
            del self.inner.state[next(iter(self.inner.state))]


class ZeroesMoments(LosesOnLoading):
    def lose(self) -> None:
        for state, name in self.moments():
            state[name].zero_()


class RoundsMoments(LosesOnLoading):
    def lose(self) -> None:
        for state, name in self.moments():
            state[name].copy_(_rounded(state[name]))


class MovesAMomentByOneUlp(LosesOnLoading):
    def lose(self) -> None:
        for state, name in self.moments()[:1]:
            _move_by_one_ulp(state[name])


class StartsStepsAtZero(LosesOnLoading):
    def lose(self) -> None:
        for state in self.inner.state.values():
            if "step" in state:
                state["step"] = state["step"] * 0


class TakesRateFromArguments(LosesOnLoading):
    """Overwrites the rate of the groups, which the schedule sets after the next step."""

    def lose(self) -> None:
        for group in self.inner.param_groups:
            group["lr"] = self.args.learning_rate


# --- weights and buffers ----------------------------------------------------------------------------------------------


class RoundsWeights(LosesOnLoading):
    def lose(self) -> None:
        for parameter in self.model.parameters():
            parameter.copy_(_rounded(parameter))


class MovesAWeightByOneUlp(LosesOnLoading):
    def lose(self) -> None:
        _move_by_one_ulp(self.model.head.weight)


class MissesATensor(TinyTrainer):
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        fresh = self.model.head.weight.detach().clone()
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        with torch.no_grad():
            self.model.head.weight.copy_(fresh)


class LosesBuffers(LosesOnLoading):
    def lose(self) -> None:
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.reset_running_stats()


class FreezesAfterLoading(LosesOnLoading):
    def lose(self) -> None:
        self.model.head.bias.requires_grad_(False)


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().to(tensor.dtype)


def _move_by_one_ulp(tensor: Tensor) -> None:
    first = tensor.reshape(-1)[:1]
    tensor.reshape(-1)[:1] = torch.nextafter(first, torch.full_like(first, torch.inf))


# --- state that no checkpoint holds -----------------------------------------------------------------------------------


class ScalesItsLoss(TinyTrainer):
    """Multiplies the loss of a micro-batch by `factor`, in training only."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss * self.factor(loss) if model.training else loss

    def factor(self, loss: Any) -> Any:
        raise NotImplementedError


class CountsInTheTrainer(ScalesItsLoss):
    calls = 0

    def factor(self, loss: Any) -> float:
        self.calls += 1
        return 1 + 0.01 * self.calls


class CountsForDisplay(CountsInTheTrainer):
    called_at = 0.0

    def factor(self, loss: Any) -> float:
        super().factor(loss)
        self.called_at = time.time()
        return 1.0


class CountsInTheModel(ScalesItsLoss):
    def factor(self, loss: Any) -> float:
        self.model.calls = getattr(self.model, "calls", 0) + 1
        return 1 + 0.01 * self.model.calls


class CountsInTheClass(ScalesItsLoss):
    calls = 0

    def factor(self, loss: Any) -> float:
        type(self).calls += 1
        return 1 + 0.01 * self.calls


class Tally:
    calls = 0


class CountsInAGlobal(ScalesItsLoss):
    def factor(self, loss: Any) -> float:
        Tally.calls += 1
        return 1 + 0.01 * Tally.calls


class CountsInAClosure(ScalesItsLoss):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.number = _numbers()

    def factor(self, loss: Any) -> float:
        return 1 + 0.01 * self.number()


def _numbers() -> Callable[[], int]:
    calls = 0

    def number() -> int:
        nonlocal calls
        calls += 1
        return calls

    return number


class DividesByARunningMean(ScalesItsLoss):
    mean = 1.0

    def factor(self, loss: Any) -> float:
        self.mean = 0.9 * self.mean + 0.1 * float(loss.detach())
        return 1 / self.mean


class PullsTowardsAnAverage(TinyTrainer):
    average: dict[str, Tensor] | None = None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not model.training:
            return loss
        weights = dict(self.model.named_parameters())
        if self.average is None:
            self.average = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            self.average[name].lerp_(weight.detach(), 0.3)
        return loss + sum(((weight - self.average[name]) ** 2).sum() for name, weight in weights.items())


class DrawsFromItsOwn(ScalesItsLoss):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stream = torch.Generator().manual_seed(1)

    def factor(self, loss: Any) -> float:
        return 0.5 + float(torch.rand(1, generator=self.stream))


class NoisyCollator:
    """Adds noise from a numpy generator of its own to what another collator makes."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.inner = inner
        self.stream = np.random.default_rng(0)

    def __call__(self, rows: Any) -> Any:
        batch = self.inner(rows)
        return batch | {"features": batch["features"] + float(self.stream.normal(0, 0.1))}


class CollatesWithNoise(TinyTrainer):
    def __init__(self, *args: Any, data_collator: Any, **kwargs: Any) -> None:
        super().__init__(*args, data_collator=NoisyCollator(data_collator), **kwargs)


class CountsReads(Rows):
    """Rows whose features grow with every read."""

    reads = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        self.reads += 1
        return row | {"features": row["features"] * (1 + 0.02 * self.reads)}


class ReadsACountingDataset(TinyTrainer):
    def __init__(self, *args: Any, train_dataset: Any, **kwargs: Any) -> None:
        super().__init__(*args, train_dataset=CountsReads(len(train_dataset)), **kwargs)


class ShrinksEveryThird(TrainerCallback):
    """Shrinks the head after every third step, by its own count."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.steps += 1
        if self.steps % 3 == 0:
            with torch.no_grad():
                model.head.weight.mul_(0.9)


class CountsInACallback(TinyTrainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(ShrinksEveryThird())


# --- what is different when a run is resumed --------------------------------------------------------------------------


class ChangesOnResume(TinyTrainer):
    """Does `change` before it trains on."""

    def train(self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: Any = None) -> Any:
        if resume_from_checkpoint is not None:
            self.change()
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def change(self) -> None:
        raise NotImplementedError


class ChangesTheRate(ChangesOnResume):
    """Has another learning rate in its arguments; the checkpoint's is restored."""

    def change(self) -> None:
        self.args.learning_rate *= 2


class ChangesClipping(ChangesOnResume):
    def change(self) -> None:
        self.args.max_grad_norm = 0.02


class ChangesTheBatchSize(ChangesOnResume):
    def change(self) -> None:
        self.args.per_device_train_batch_size += 1
        self._train_batch_size = self.args.train_batch_size


class ChangesAccumulation(ChangesOnResume):
    def change(self) -> None:
        self.args.gradient_accumulation_steps += 1


class ChangesTheSeed(ChangesOnResume):
    def change(self) -> None:
        self.args.seed += 1


class SkipsNoData(ChangesOnResume):
    def change(self) -> None:
        self.args.ignore_data_skip = True


class ChangesDropout(ChangesOnResume):
    def change(self) -> None:
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p /= 2


# --- order of the data ------------------------------------------------------------------------------------------------


class CountsItsPasses(torch.utils.data.Sampler[int]):
    """Another order for each pass, by its own count of passes."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.passes = 0

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Any:
        self.passes += 1
        return iter(torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.passes)).tolist())


class SamplesByPasses(TinyTrainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return CountsItsPasses(len(self.train_dataset))


# --- saving -----------------------------------------------------------------------------------------------------------


class RoundsWhenSaving(TinyTrainer):
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(_rounded(parameter))
        super()._save_checkpoint(model, trial)
