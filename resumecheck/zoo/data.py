"""Data that comes with other content, in another order, or from another place after a resume."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import BATCH, LENGTH, ROWS, Rows, TinyTrainer, make_trainer


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


class CountsItsEpochs(torch.utils.data.Sampler[int]):
    """Shuffles by an epoch that it counts by itself, from 0 in every process."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch))
        self.epoch += 1
        return iter(order.tolist())


class IsToldItsEpoch(CountsItsEpochs):
    """Shuffles by the epoch that the trainer sets."""

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch))
        return iter(order.tolist())

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class OwnSampler(TinyTrainer):
    """Uses a sampler of its own."""

    sampler: type[Any] = CountsItsEpochs

    def get_train_dataloader(self) -> Any:
        loader = torch.utils.data.DataLoader(
            self.train_dataset, batch_size=BATCH, sampler=self.sampler(), collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)


class OwnSamplerToldItsEpoch(OwnSampler):
    """Uses a sampler that is told its epoch."""

    sampler = IsToldItsEpoch


def sampler_starts_at_epoch_zero(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OwnSampler)


def sampler_starts_at_epoch_zero_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OwnSamplerToldItsEpoch)
