"""Learning-rate schedules that go on from another place."""
# ruff: noqa: D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Trainer

from resumecheck.zoo.setups import TinyTrainer, make_trainer


class StartsItsScheduleAgain(TinyTrainer):
    """Builds a new schedule after loading."""

    loads_again = False

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.lr_scheduler = None
            self.create_scheduler(self.state.max_steps)
            if self.loads_again:
                for name, part in (("optimizer.pt", self.optimizer), ("scheduler.pt", self.lr_scheduler)):
                    part.load_state_dict(torch.load(Path(checkpoint) / name, weights_only=True))


class RebuildsAndLoadsItsSchedule(StartsItsScheduleAgain):
    """Builds a new schedule, and then loads both optimizer and schedule, in this order."""

    loads_again = True


def scheduler_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, StartsItsScheduleAgain)


def scheduler_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RebuildsAndLoadsItsSchedule)
