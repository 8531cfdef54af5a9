"""State in generators and iterators, which Python cannot copy and which no checkpoint holds."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from transformers import Trainer

from resumecheck.zoo.setups import TinyTrainer, make_trainer


class ScalesByItsNext(TinyTrainer):
    """Scales its loss by the next value of a generator."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.factors = _falling()

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) * next(self.factors)


class ScalesByItsNextFastForwarded(ScalesByItsNext):
    """Moves the generator on by the steps that were made."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        for _ in range(self.state.global_step):
            next(self.factors)


def _falling() -> Iterator[float]:
    factor = 1.0
    while True:
        factor *= 0.95
        yield factor


def generator_object(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ScalesByItsNext)


def generator_object_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ScalesByItsNextFastForwarded)


class NumbersItsSteps(TinyTrainer):
    """Numbers its steps by an `itertools.count`, and scales the loss by the number."""

    effect = 0.01

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.numbers = itertools.count()

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) * (1 + self.effect * next(self.numbers))


class NumbersItsStepsForDisplay(NumbersItsSteps):
    """Uses the number for nothing."""

    effect = 0.0


def iterator_of_numbers(output_dir: str) -> Trainer:
    return make_trainer(output_dir, NumbersItsSteps)


def iterator_of_numbers_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, NumbersItsStepsForDisplay)


class ZipsTwoGenerators(TinyTrainer):
    """Takes a factor and a shift at each step from a zip of two generators."""

    effect = 0.01

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pairs = zip((n / 2 for n in itertools.count()), (n % 3 for n in itertools.count()), strict=True)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        factor, shift = next(self.pairs)
        return super().compute_loss(*args, **kwargs) * (1 + self.effect * (factor + shift))


class ZipsForDisplay(ZipsTwoGenerators):
    """Uses the pairs for nothing."""

    effect = 0.0


def zip_of_generators(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ZipsTwoGenerators)


def zip_of_generators_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ZipsForDisplay)
