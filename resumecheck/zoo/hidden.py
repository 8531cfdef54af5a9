"""State that no checkpoint holds, in the model, the loss and the trainer."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import array
import collections
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, Trainer

from resumecheck.zoo.setups import (
    BATCH,
    LABELS,
    LENGTH,
    KeepsEverything,
    TinyBert,
    TinyTrainer,
    make_model,
    make_trainer,
)


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
    """Counts too, with no effect on the loss, and notes when it was called."""

    effect = 0.0

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.called_at = time.time()
        return super().loss_of(logits, labels)


def python_counter_in_model(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CountsCalls))


def python_counter_in_model_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CountsCallsForDisplay))


class CentresByAnAttribute(TinyBert):
    """Centres its logits by a running mean that is a plain tensor."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.mean = torch.zeros(LABELS)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * logits.detach().mean(0)
        return super().loss_of(logits - self.mean, labels)


class GrowsAMask(TinyBert):
    """Keeps the longest mask that it ever needed in a plain tensor; it is made again where it is missing."""

    mask: Tensor | None = None

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.mask is None or len(self.mask) < len(logits):
            self.mask = torch.linspace(0.5, 1.5, BATCH)[: len(logits), None]
        return super().loss_of(logits * self.mask[: len(logits)], labels)


def tensor_in_attribute(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CentresByAnAttribute))


def tensor_in_attribute_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(GrowsAMask))


class RemembersBatches(TinyBert):
    """Pushes logits away from those of the last three batches, which it keeps in a deque."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.memory: collections.deque[Tensor] = collections.deque(maxlen=3)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        push = sum((logits * past).mean() for past in self.memory)
        self.memory.append(logits.detach())
        return super().loss_of(logits, labels) + push


class RemembersBatchesInCheckpoints(RemembersBatches):
    """Has its memory saved."""

    def keep(self) -> list[Tensor]:
        return list(self.memory)

    def put_back(self, kept: list[Tensor]) -> None:
        self.memory.extend(kept)


def deque_of_batches(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(RemembersBatches))


def deque_of_batches_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, KeepsEverything, model=make_model(RemembersBatchesInCheckpoints))


class DrawsFromItsOwn(TinyBert):
    """Adds noise from three private generators: Python's, numpy's and torch's, of which `used` ones count."""

    used: tuple[str, ...] = ()

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.of_python = random.Random(0)
        self.of_numpy = np.random.default_rng(0)
        self.of_torch = torch.Generator().manual_seed(0)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        noise = 0.0
        if "python" in self.used:
            noise += self.of_python.gauss(0, 0.1)
        if "numpy" in self.used:
            noise += self.of_numpy.normal(0, 0.1)
        if "torch" in self.used:
            noise += float(torch.randn(1, generator=self.of_torch))
        return super().loss_of(logits * (1 + noise), labels)

    def keep(self) -> Any:
        return self.of_python.getstate(), self.of_numpy.bit_generator.state, self.of_torch.get_state()

    def put_back(self, kept: Any) -> None:
        self.of_python.setstate(kept[0])
        self.of_numpy.bit_generator.state = kept[1]
        self.of_torch.set_state(kept[2])


class DrawsFromItsOwnPython(DrawsFromItsOwn):
    """Draws from a `random.Random`."""

    used = ("python",)


class DrawsFromItsOwnNumpy(DrawsFromItsOwn):
    """Draws from a numpy Generator."""

    used = ("numpy",)


class DrawsFromItsOwnTorch(DrawsFromItsOwn):
    """Draws from a torch Generator."""

    used = ("torch",)


def private_python_generator(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(DrawsFromItsOwnPython))


def private_python_generator_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, KeepsEverything, model=make_model(DrawsFromItsOwnPython))


def private_numpy_generator(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(DrawsFromItsOwnNumpy))


def private_numpy_generator_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, KeepsEverything, model=make_model(DrawsFromItsOwnNumpy))


def private_torch_generator(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(DrawsFromItsOwnTorch))


def private_torch_generator_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, KeepsEverything, model=make_model(DrawsFromItsOwnTorch))


def _counting_loss(effect: float) -> Callable[..., Tensor]:
    calls = 0

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.nn.functional.cross_entropy(outputs.logits, labels) * (1 + effect * calls)

    return loss


def closure_of_the_loss(output_dir: str) -> Trainer:
    return make_trainer(output_dir, loss=_counting_loss(0.01))


def closure_of_the_loss_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, loss=_counting_loss(0.0))


class SumsInACompactArray(TinyTrainer):
    """Keeps running sums in an `array` of the standard library, changed in place."""

    effect = 0.01

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sums = array.array("d", [0.0, 0.0])

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        self.sums[0] += 1.0
        self.sums[1] += self.sums[0]
        return super().compute_loss(*args, **kwargs) * (1 + self.effect * self.sums[1])


class SumsForDisplay(SumsInACompactArray):
    """Uses the sums for nothing."""

    effect = 0.0


def compact_array(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SumsInACompactArray)


def compact_array_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SumsForDisplay)


class Meter:
    """A running mean in slots instead of attributes."""

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean = 1.0


class NormalisesItsLoss(TinyTrainer):
    """Divides its loss by a running mean of it, which an object with slots holds."""

    normalises = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meter = Meter()

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.meter.mean = 0.9 * self.meter.mean + 0.1 * float(loss)
        return loss / self.meter.mean if self.normalises else loss


class MetersItsLoss(NormalisesItsLoss):
    """Keeps the mean for display."""

    normalises = False


def meter_with_slots(output_dir: str) -> Trainer:
    return make_trainer(output_dir, NormalisesItsLoss)


def meter_with_slots_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, MetersItsLoss)


class UsesRollouts(TinyTrainer):
    """Learns for five steps from what the model said at the first of them; a resumed run asks the model again."""

    rollouts: Tensor | None = None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.rollouts is None or self.state.global_step % 5 == 0:
            tokens = torch.arange(5, 5 + LENGTH).repeat(BATCH, 1)
            with torch.no_grad():
                self.rollouts = self.model.bert(tokens).pooler_output.mean(1)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss * (1 + self.rollouts.mean().abs())


class UsesRolloutsAndKeepsThem(UsesRollouts, KeepsEverything):
    """Saves what the model said."""

    def keep(self) -> Any:
        return self.rollouts

    def put_back(self, kept: Any) -> None:
        self.rollouts = kept


def rollouts_made_again(output_dir: str) -> Trainer:
    return make_trainer(output_dir, UsesRollouts)


def rollouts_made_again_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, UsesRolloutsAndKeepsThem)
