"""Several states lost at once."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from resumecheck.zoo.hidden import CountsCalls, CountsCallsForDisplay
from resumecheck.zoo.setups import TinyTrainer, make_model, make_trainer
from resumecheck.zoo.streams import RestoresNoTorch, RestoresSomeStreams


class RenamesItsOptimizerFile(TinyTrainer):
    """Saves the optimizer under a name that the Trainer does not look for: it then loads the schedule neither."""

    back = False

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        (Path(output_dir) / "optimizer.pt").rename(Path(output_dir) / "adam.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.back:
            (Path(checkpoint) / "adam.pt").rename(Path(checkpoint) / "optimizer.pt")
        super()._load_optimizer_and_scheduler(checkpoint)


class RenamesItBack(RenamesItsOptimizerFile):
    """Renames the file before it loads."""

    back = True


def optimizer_file_under_another_name(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RenamesItsOptimizerFile)


def optimizer_file_under_another_name_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RenamesItBack)


class RemovesLargeFiles(TrainerCallback):
    """Removes the optimizer's file from each checkpoint, to save space."""

    removed = "optimizer.pt"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / self.removed).unlink()


class RemovesArguments(RemovesLargeFiles):
    """Removes the copy of the arguments, which no resume reads."""

    removed = "training_args.bin"


def large_files_removed(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[RemovesLargeFiles()])


def large_files_removed_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[RemovesArguments()])


def only_the_model_saved(output_dir: str) -> Trainer:
    return make_trainer(output_dir, save_only_model=True)


def only_the_model_saved_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, save_only_model=False, save_total_limit=5)


def stream_and_counter_lost(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresNoTorch, model=make_model(CountsCalls))


def stream_and_counter_lost_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestoresSomeStreams, model=make_model(CountsCallsForDisplay))
