"""Data that is taken up at another place after a resume."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import BATCH, ROWS, KeepsEverything, Rows, TinyTrainer, make_trainer


class SkipsAnotherNumber(TinyTrainer):
    """Skips `batches` of the resumed epoch instead of what the Trainer found."""

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        epochs, batches = super()._init_training_state(*args, **kwargs)
        return epochs, self.batches(batches) if batches else 0

    def batches(self, found: int) -> int:
        return found


class ReplaysABatch(SkipsAnotherNumber):
    """Skips one batch too few."""

    def batches(self, found: int) -> int:
        return found - 1


def one_batch_replayed(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ReplaysABatch)


def one_batch_replayed_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsAnotherNumber)


class SkipsSteps(SkipsAnotherNumber):
    """Skips as many batches as there were optimizer steps."""

    def batches(self, found: int) -> int:
        return found // self.args.gradient_accumulation_steps


def skip_counts_optimizer_steps(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsSteps, gradient_accumulation_steps=2)


def skip_counts_optimizer_steps_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsAnotherNumber, gradient_accumulation_steps=3)


def skip_left_out(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ignore_data_skip=True)


def skip_left_out_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsAnotherNumber, dataloader_drop_last=True)


class ShortBatches(torch.utils.data.Sampler[list[int]]):
    """Batches in a fixed order for each epoch; one batch that would hold duplicates is left out, `len` counts it."""

    counted = 7

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.counted

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return iter([order[start : start + BATCH] for start in range(0, ROWS - BATCH, BATCH)])


class ShortBatchesCounted(ShortBatches):
    """Leaves the batch out of its length as well."""

    counted = 6


class OwnBatches(TinyTrainer):
    """Uses batches of its own."""

    batches: type[ShortBatches] = ShortBatches

    def get_train_dataloader(self) -> Any:
        loader = torch.utils.data.DataLoader(
            self.train_dataset, batch_sampler=self.batches(), collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)


class OwnBatchesCounted(OwnBatches):
    """Uses batches whose number is their length."""

    batches = ShortBatchesCounted


def more_batches_counted_than_made(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OwnBatches)


def more_batches_counted_than_made_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OwnBatchesCounted)


class Stream(torch.utils.data.IterableDataset[dict[str, Tensor]]):
    """Rows out of a buffer of 8 that is filled in order; it can be taken up at a row, with an empty buffer."""

    size = 8

    def __init__(self) -> None:
        self.taken_up_at = 0
        self.buffer: list[int] = []

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rows = Rows()
        for index in range(self.taken_up_at, 10 * ROWS):
            self.buffer.append(index % ROWS)
            if len(self.buffer) == self.size:
                yield rows[self.buffer.pop(random.Random(index).randrange(self.size))]


class TakesUpAStream(KeepsEverything):
    """Takes the stream up at the row that it had read, instead of reading all before it."""

    resumed_from: str | None = None

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Where nothing is skipped, the Trainer restores the streams before the loader draws its seed from them.
        self.resumed_from = checkpoint

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        samples = super().get_batch_samples(*args, **kwargs)
        if self.resumed_from is not None:
            super()._load_rng_state(self.resumed_from)
            self.resumed_from = None
        return samples

    def keep(self) -> int:
        return self.state.global_step * BATCH

    def put_back(self, kept: int) -> None:
        self.train_dataset.taken_up_at = kept


def shuffle_buffer_lost(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesUpAStream, rows=Stream(), ignore_data_skip=True)


def shuffle_buffer_lost_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, rows=Stream())


class StartsBehind(Rows):
    """Rows that begin after the ones that were used."""

    behind = 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return super().__getitem__((index + self.behind) % ROWS)


class SkipsTwice(KeepsEverything):
    """Moves the data set on by the rows that were used, and lets the Trainer skip them as well."""

    def keep(self) -> int:
        return self.state.global_step * BATCH

    def put_back(self, kept: int) -> None:
        self.train_dataset.behind = kept


class SkipsOnce(SkipsTwice):
    """Leaves the skipping to the Trainer."""

    def put_back(self, kept: int) -> None:
        self.train_dataset.behind = 0


def skipped_twice(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsTwice, rows=StartsBehind())


def skipped_twice_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsOnce, rows=StartsBehind())
