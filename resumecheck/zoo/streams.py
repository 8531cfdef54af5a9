"""Global random streams that go on from another place."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import contextlib
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, set_seed

from resumecheck.zoo.setups import TinyBert, TinyTrainer, make_model, make_trainer


class RestoresSomeStreams(TinyTrainer):
    """Restores the streams that are listed."""

    restored: tuple[str, ...] = ("python", "numpy", "torch")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        super()._load_rng_state(checkpoint)
        if "python" not in self.restored:
            random.setstate(before[0])
        if "numpy" not in self.restored:
            np.random.set_state(before[1])
        if "torch" not in self.restored:
            torch.set_rng_state(before[2])


class RestoresNoTorch(RestoresSomeStreams):
    """Restores all streams but torch's."""

    restored = ("python", "numpy")


def torch_stream_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresNoTorch)


def torch_stream_not_restored_twin(output_dir: str) -> Trainer:
    no_dropout = make_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return make_trainer(output_dir, RestoresNoTorch, model=no_dropout)


class DrawsFromPython(TinyBert):
    """Weighs its loss by a number from Python's stream."""

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().loss_of(logits, labels) * random.uniform(0.5, 1.5)


class RestoresNoPython(RestoresSomeStreams):
    """Restores all streams but Python's."""

    restored = ("numpy", "torch")


def python_stream_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresNoPython, model=make_model(DrawsFromPython))


def python_stream_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresSomeStreams, model=make_model(DrawsFromPython))


class DrawsFromNumpy(TinyBert):
    """Mixes the rows of a batch by weights from numpy's stream."""

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = float(np.random.beta(2, 2))
        return super().loss_of(weight * logits + (1 - weight) * logits.roll(1, 0), labels)


class RestoresNoNumpy(RestoresSomeStreams):
    """Restores all streams but numpy's."""

    restored = ("python", "torch")


def numpy_stream_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresNoNumpy, model=make_model(DrawsFromNumpy))


def numpy_stream_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresSomeStreams, model=make_model(DrawsFromNumpy))


class RestoresOnlyWithinAnEpoch(TinyTrainer):
    """Restores the streams only where batches are skipped, so not at the boundary of an epoch."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.state.global_step % 7 != 0:
            super()._load_rng_state(checkpoint)


def streams_not_restored_at_epoch_boundary(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresOnlyWithinAnEpoch)


def streams_not_restored_at_epoch_boundary_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, label_smoothing_factor=0.1)


class SeedsAfterRestoring(TinyTrainer):
    """Seeds every stream once more after it was restored."""

    again = False

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        set_seed(self.args.seed)
        if self.again:
            super()._load_rng_state(checkpoint)


class SeedsAndRestores(SeedsAfterRestoring):
    """Seeds every stream, and restores it after that."""

    again = True


def streams_seeded_after_restoring(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SeedsAfterRestoring)


def streams_seeded_after_restoring_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SeedsAndRestores)


class Note:
    """A label in the file of streams, which makes the file unsafe to load."""


class LoadsIfItCan(TinyTrainer):
    """Puts an object among the saved streams that torch refuses to load, and goes on without them."""

    label: Any = Note()

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        file = Path(output_dir) / "rng_state.pth"
        torch.save(torch.load(file, weights_only=False) | {"label": self.label}, file)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with contextlib.suppress(pickle.UnpicklingError):
            super()._load_rng_state(checkpoint)


class LoadsBecauseItCan(LoadsIfItCan):
    """Puts a text there, which can be loaded."""

    label = "restored"


def error_of_loading_streams_swallowed(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsIfItCan)


def error_of_loading_streams_swallowed_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsBecauseItCan)


class RestoresAnotherRank(TinyTrainer):
    """Restores the torch stream that another rank would have."""

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        other = torch.Generator().manual_seed(self.args.seed + 1).get_state()
        torch.save({"cpu": other}, Path(output_dir) / "rng_state_1.pth")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        torch.set_rng_state(torch.load(Path(str(checkpoint)) / "rng_state_1.pth", weights_only=True)["cpu"])


class RestoresItsOwnRank(RestoresAnotherRank):
    """Writes the other rank's stream, and restores its own."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super(RestoresAnotherRank, self)._load_rng_state(checkpoint)


def stream_of_another_rank(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresAnotherRank)


def stream_of_another_rank_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresItsOwnRank)


class DrawsAfterRestoring(TinyTrainer):
    """Checks the restored stream by drawing from it."""

    puts_back = False

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        before = torch.get_rng_state()
        torch.rand(1)
        if self.puts_back:
            torch.set_rng_state(before)


class DrawsAndPutsBack(DrawsAfterRestoring):
    """Puts the stream back to where it was."""

    puts_back = True


def stream_drawn_from_after_restoring(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DrawsAfterRestoring)


def stream_drawn_from_after_restoring_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DrawsAndPutsBack)
