"""Samples in another order after a resume."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from resumecheck.zoo.setups import BATCH, ROWS, KeepsEverything, TinyTrainer, make_trainer


class CountsItsEpochs(torch.utils.data.Sampler[int]):
    """Shuffles by an epoch that it counts by itself, from 0 in every process."""

    def __init__(self, trainer: Any = None) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        order = _order(self.epoch)
        self.epoch += 1
        return iter(order)


class IsToldItsEpoch(CountsItsEpochs):
    """Shuffles by the epoch that the trainer sets."""

    def __iter__(self) -> Iterator[int]:
        return iter(_order(self.epoch))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def _order(seed: int) -> list[int]:
    return torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed)).tolist()


class OwnSampler(TinyTrainer):
    """Uses a sampler of its own."""

    sampler: type[CountsItsEpochs] = CountsItsEpochs

    def get_train_dataloader(self) -> Any:
        loader = torch.utils.data.DataLoader(
            self.train_dataset, batch_size=BATCH, sampler=self.sampler(self), collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)


class OwnSamplerToldItsEpoch(OwnSampler):
    """Uses a sampler that is told its epoch."""

    sampler = IsToldItsEpoch


def sampler_starts_at_epoch_zero(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OwnSampler)


def sampler_starts_at_epoch_zero_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OwnSamplerToldItsEpoch)


def order_from_global_stream(output_dir: str) -> Trainer:
    return make_trainer(output_dir, accelerator_config={"use_seedable_sampler": False})


def order_from_global_stream_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, train_sampling_strategy="sequential")


class IsAhead(IsToldItsEpoch):
    """Shuffles by the epoch and an offset."""

    ahead = 0

    def __iter__(self) -> Iterator[int]:
        return iter(_order(self.epoch + self.ahead))


class RunsAheadOnResume(OwnSampler):
    """Resumes with the order of the epoch after the one that it resumes in."""

    sampler = IsAhead
    ahead = 1

    def _run_epoch(self, **kwargs: Any) -> None:  # ty: ignore[incompatible-method-override]
        resumed_in = kwargs["epochs_trained"] if kwargs["resume_from_checkpoint"] else None
        sampler = kwargs["train_dataloader"].batch_sampler.sampler
        sampler.ahead = self.ahead if kwargs["epoch"] == resumed_in else 0
        super()._run_epoch(**kwargs)


class StaysInItsEpoch(RunsAheadOnResume):
    """Adds nothing."""

    ahead = 0


def order_of_the_next_epoch(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RunsAheadOnResume)


def order_of_the_next_epoch_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, StaysInItsEpoch)


class SkipsInACopy(OwnSampler):
    """Resumes an epoch on a copy of the loader, so that the loader's own sampler repeats that epoch's order."""

    copies = True

    def _run_epoch(self, **kwargs: Any) -> None:  # ty: ignore[incompatible-method-override]
        if kwargs["resume_from_checkpoint"] and kwargs["epoch"] == kwargs["epochs_trained"]:
            loader = kwargs["train_dataloader"]
            loader.batch_sampler.sampler.epoch = kwargs["epoch"]
            if self.copies:
                kwargs["train_dataloader"] = copy.deepcopy(loader)
        super()._run_epoch(**kwargs)


class SkipsInTheLoader(SkipsInACopy):
    """Resumes on the loader itself."""

    copies = False


def order_repeated_in_the_next_epoch(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsInACopy)


def order_repeated_in_the_next_epoch_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SkipsInTheLoader)


class ShufflesInPlace(CountsItsEpochs):
    """Shuffles one list again and again, by a generator of its own; what is saved is its state at the epoch's start."""

    def __init__(self, trainer: Any = None) -> None:
        super().__init__()
        self.generator = random.Random(0)
        self.order = list(range(ROWS))
        self.start: Any = None
        if trainer is not None:
            trainer.own_sampler = self

    def __iter__(self) -> Iterator[int]:
        self.start = (self.generator.getstate(), list(self.order))
        self.generator.shuffle(self.order)
        return iter(list(self.order))


class OwnShuffle(OwnSampler):
    """Uses a sampler that shuffles its list in place."""

    own_sampler: Any
    sampler = ShufflesInPlace


class OwnShuffleKept(OwnShuffle, KeepsEverything):
    """Saves the generator and the list as they were when the epoch began."""

    def keep(self) -> Any:
        return self.own_sampler.start

    def put_back(self, kept: Any) -> None:
        state, order = kept
        self.own_sampler.generator.setstate(state)
        self.own_sampler.order[:] = order


def list_shuffled_in_place(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OwnShuffle)


def list_shuffled_in_place_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OwnShuffleKept)


class HardestFirst(CountsItsEpochs):
    """Takes rows in the order of the losses that the trainer noted in the epoch before."""

    def __init__(self, trainer: Any = None) -> None:
        super().__init__()
        self.trainer = trainer

    def __iter__(self) -> Iterator[int]:
        losses = self.trainer.noted
        return iter(sorted(range(ROWS), key=lambda index: (-losses.get(index % 3, 0.0), index)))


class NotesLosses(OwnSampler):
    """Notes losses by the first class of a batch, and lets the next epoch begin with the hardest."""

    sampler = HardestFirst

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.noting: dict[int, float] = {}
        self.noted: dict[int, float] = {}
        self.add_callback(_TurnsThePage(self))

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        label = int(inputs["labels"][0])
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.noting[label] = self.noting.get(label, 0.0) + float(loss)
        return loss


class _TurnsThePage(TrainerCallback):
    def __init__(self, trainer: NotesLosses) -> None:
        self.trainer = trainer

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.noted, self.trainer.noting = self.trainer.noting, {}


class NotesAndKeepsLosses(NotesLosses, KeepsEverything):
    """Saves what it noted."""

    def keep(self) -> Any:
        return self.noting, self.noted

    def put_back(self, kept: Any) -> None:
        self.noting, self.noted = kept


def order_by_losses_of_the_last_epoch(output_dir: str) -> Trainer:
    return make_trainer(output_dir, NotesLosses)


def order_by_losses_of_the_last_epoch_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, NotesAndKeepsLosses)
