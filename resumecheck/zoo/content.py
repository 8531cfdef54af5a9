"""The same samples with other content after a resume."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, default_data_collator

from resumecheck.zoo.setups import LENGTH, ROWS, Rows, make_trainer


class MasksAtRandom(Rows):
    """Masks one token of each row, drawn from Python's global stream."""

    def position(self, index: int) -> int:
        return random.randrange(LENGTH)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = super().__getitem__(index)
        row["input_ids"][self.position(index)] = 3
        return row


class MasksByIndex(MasksAtRandom):
    """Masks one token of each row, drawn from a generator keyed by the row."""

    def position(self, index: int) -> int:
        return random.Random(index).randrange(LENGTH)


def global_random_in_data_set(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=MasksAtRandom())


def global_random_in_data_set_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=MasksByIndex())


def workers_draw_at_random(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=MasksAtRandom(), dataloader_num_workers=2)


def workers_draw_at_random_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=MasksByIndex(), dataloader_num_workers=2)


class MasksByItsGenerator(MasksAtRandom):
    """Masks by a numpy generator of its own, which is in no checkpoint."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def position(self, index: int) -> int:
        return int(self.generator.integers(LENGTH))


class MasksByItsSeed(MasksAtRandom):
    """Masks by a numpy generator made anew for each row, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def position(self, index: int) -> int:
        self.asked += 1
        return int(np.random.default_rng([0, index]).integers(LENGTH))


def generator_of_data_set_not_saved(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=MasksByItsGenerator())


def generator_of_data_set_not_saved_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=MasksByItsSeed())


class IgnoresTheIndex(Rows):
    """Returns the next row, whichever is asked for."""

    def __init__(self) -> None:
        self.accesses = 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.accesses += 1
        return super().__getitem__(self.row(index))

    def row(self, index: int) -> int:
        return (self.accesses - 1) % ROWS


class CountsAccesses(IgnoresTheIndex):
    """Counts accesses for a log line, and returns the row that is asked for."""

    def row(self, index: int) -> int:
        return index


def data_set_ignores_the_index(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=IgnoresTheIndex())


def data_set_ignores_the_index_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=CountsAccesses())


class MasksBatches:
    """A collator that masks tokens by a generator of its own, which starts again in a new process."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = default_data_collator(rows)
        masked = torch.rand(batch["input_ids"].shape, generator=self.generator_for(batch)) < 0.15
        batch["input_ids"] = batch["input_ids"].masked_fill(masked, 3)
        return batch

    def generator_for(self, batch: dict[str, Tensor]) -> torch.Generator:
        return self.generator


class MasksBatchesByContent(MasksBatches):
    """Seeds the generator by the batch."""

    def generator_for(self, batch: dict[str, Tensor]) -> torch.Generator:
        return self.generator.manual_seed(int(batch["input_ids"].sum()))


def generator_of_collator_not_saved(output_dir: str) -> Trainer:
    return make_trainer(output_dir, collator=MasksBatches())


def generator_of_collator_not_saved_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, collator=MasksBatchesByContent())


class AppendsFromACycle:
    """A collator that replaces the last token by the next one of an endless cycle."""

    def __init__(self) -> None:
        self.tokens = itertools.cycle(range(5, 60))

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = default_data_collator(rows)
        batch["input_ids"][:, -1] = self.token(batch)
        return batch

    def token(self, batch: dict[str, Tensor]) -> int:
        return next(self.tokens)


class AppendsByContent(AppendsFromACycle):
    """Moves the cycle too, and takes the token from the batch."""

    def token(self, batch: dict[str, Tensor]) -> int:
        return super().token(batch) * 0 + int(batch["input_ids"][0, 0])


def cycle_in_collator(output_dir: str) -> Trainer:
    return make_trainer(output_dir, collator=AppendsFromACycle())


def cycle_in_collator_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, collator=AppendsByContent())


class GetsHarder(Rows):
    """Hides more of each row the higher its difficulty is."""

    difficulty = 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = super().__getitem__(index)
        row["input_ids"][: self.difficulty] = 3
        return row


class RaisesDifficulty(TrainerCallback):
    """Raises the difficulty by one when an epoch begins."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rows = kwargs["train_dataloader"].dataset
        rows.difficulty = self.next_difficulty(rows, state)

    def next_difficulty(self, rows: Any, state: Any) -> int:
        return rows.difficulty + 1


class SetsDifficulty(RaisesDifficulty):
    """Sets the difficulty by the number of the epoch."""

    def next_difficulty(self, rows: Any, state: Any) -> int:
        return int(state.epoch or 0) + 1


def difficulty_starts_again(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=GetsHarder(), callbacks=[RaisesDifficulty()])


def difficulty_starts_again_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=GetsHarder(), callbacks=[SetsDifficulty()])
