"""Training that does not repeat itself, resumed or not."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import os
import time
import uuid
from typing import Any

import numpy as np
from torch import Tensor
from transformers import BertConfig, Trainer, default_data_collator

from resumecheck.zoo.setups import Rows, TinyBert, TinyTrainer, make_model, make_trainer


class DrawsUnseeded(TinyBert):
    """Draws from a numpy Generator without a seed."""

    seeded = False

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.unseeded = np.random.default_rng()

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        drawn = self.unseeded.uniform(0.5, 1.5)
        factor = np.random.default_rng(len(labels)).uniform(0.5, 1.5) if self.seeded else drawn
        return super().loss_of(logits, labels) * factor


class DrawsSeeded(DrawsUnseeded):
    """Draws from it for nothing, and from a seeded one for the loss."""

    seeded = True


def unseeded_generator(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(DrawsUnseeded))


def unseeded_generator_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(DrawsSeeded))


class OrdersByWords:
    """A collator that puts tokens in the order of a set of words, which depends on the hash seed."""

    def __init__(self, words: Any) -> None:
        self.words = words

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = default_data_collator(rows)
        batch["input_ids"] = batch["input_ids"][:, [WORDS.index(word) for word in self.words]]
        return batch


WORDS = ("recheck", "resume", "step", "epoch", "moment", "weight", "stream", "order", "batch", "loss", "rate", "seed")


def order_of_a_set(output_dir: str) -> Trainer:
    return make_trainer(output_dir, collator=OrdersByWords(set(WORDS)))


def order_of_a_set_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, collator=OrdersByWords(sorted(set(WORDS))))


class WatchesTheClock(TinyTrainer):
    """Weighs a step by the time that the last one took."""

    effect = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.last = time.perf_counter()
        self.run = uuid.uuid4().hex

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        now = time.perf_counter()
        factor, self.last = 1 + self.effect * (now - self.last), now
        return super().compute_loss(*args, **kwargs) * factor


class ShowsTheClock(WatchesTheClock):
    """Keeps time for display."""

    effect = 0.0


def weighed_by_the_clock(output_dir: str) -> Trainer:
    return make_trainer(output_dir, WatchesTheClock)


def weighed_by_the_clock_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ShowsTheClock)


class SaltsItsRows(Rows):
    """Replaces the first token by one that the number of the process chooses."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = super().__getitem__(index)
        row["input_ids"][0] = 5 + self.salt(index) % 50
        return row

    def salt(self, index: int) -> int:
        return int.from_bytes(os.urandom(2), "big")


class SaltsItsRowsByIndex(SaltsItsRows):
    """Lets the index choose it, and knows the number of the process."""

    def salt(self, index: int) -> int:
        return index


def rows_salted_by_the_system(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=SaltsItsRows())


def rows_salted_by_the_system_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=SaltsItsRowsByIndex())
