"""Learning-rate schedules that go on from another place, or move another optimizer."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
)
from transformers import Trainer

from resumecheck.zoo.setups import FewRows, TinyTrainer, make_trainer


class StartsItsScheduleAgain(TinyTrainer):
    """Makes a new schedule after loading."""

    loads_again = False

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.lr_scheduler = None
            self.create_scheduler(self.state.max_steps)
            if self.loads_again:
                super()._load_optimizer_and_scheduler(checkpoint)


class MakesAndLoadsItsSchedule(StartsItsScheduleAgain):
    """Makes a new schedule, and then loads everything once more."""

    loads_again = True


def scheduler_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, StartsItsScheduleAgain)


def scheduler_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, MakesAndLoadsItsSchedule)


class StepsItsScheduleOnLoading(TinyTrainer):
    """Steps the schedule once after loading."""

    steps = 1

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for _ in range(self.steps):
                self.lr_scheduler.step()


class StepsNothingOnLoading(StepsItsScheduleOnLoading):
    """Steps nothing."""

    steps = 0


def schedule_stepped_twice(output_dir: str) -> Trainer:
    return make_trainer(output_dir, StepsItsScheduleOnLoading)


def schedule_stepped_twice_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, StepsNothingOnLoading, lr_scheduler_type="cosine_with_restarts")


class CountsInMicroBatches(TinyTrainer):
    """Sets the schedule by the number of micro-batches on loading."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.lr_scheduler.last_epoch *= self.args.gradient_accumulation_steps


def schedule_counts_micro_batches(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CountsInMicroBatches, gradient_accumulation_steps=2)


def schedule_counts_micro_batches_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, gradient_accumulation_steps=2, lr_scheduler_type="cosine")


class DecaysOverWhatRemains(TinyTrainer):
    """Makes a schedule over the steps that are left."""

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        return super().create_scheduler(num_training_steps - self.state.global_step, optimizer)


def schedule_over_what_remains(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DecaysOverWhatRemains)


def schedule_over_what_remains_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, warmup_steps=0, lr_scheduler_type="polynomial")


class MovesAnotherOptimizer(TinyTrainer):
    """Makes the optimizer anew after loading, while the schedule goes on to move the old one's groups."""

    binds = False

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            state = self.optimizer.state_dict()
            self.optimizer = None
            self.optimizer = self.accelerator.prepare(self.create_optimizer())
            self.optimizer.load_state_dict(state)
            if self.binds:
                self.lr_scheduler.optimizer = self.optimizer


class MovesTheNewOptimizer(MovesAnotherOptimizer):
    """Gives the new optimizer to the schedule."""

    binds = True


def schedule_moves_another_optimizer(output_dir: str) -> Trainer:
    return make_trainer(output_dir, MovesAnotherOptimizer)


def schedule_moves_another_optimizer_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, MovesTheNewOptimizer)


class OwnSchedule(TinyTrainer):
    """Makes its schedule with `schedule_for`."""

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = self.schedule_for(getattr(self.optimizer, "optimizer", self.optimizer))
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def schedule_for(self, optimizer: torch.optim.Optimizer) -> Any:
        raise NotImplementedError


class DecaysByAClosure(OwnSchedule):
    """Multiplies the rate by a factor that the closure of a LambdaLR lowers; no state_dict holds a closure."""

    def schedule_for(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        return LambdaLR(optimizer, _falling())


def _falling() -> Callable[[int], float]:
    factor = 1.0

    def fall(step: int) -> float:
        nonlocal factor
        factor *= 0.9
        return factor

    return fall


class Falling:
    """The same factor as an object, whose attributes the state_dict of a LambdaLR holds."""

    def __init__(self) -> None:
        self.factor = 1.0

    def __call__(self, step: int) -> float:
        self.factor *= 0.9
        return self.factor


class DecaysByAnObject(OwnSchedule):
    """Multiplies the rate by a factor in an object."""

    def schedule_for(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        return LambdaLR(optimizer, Falling())


def schedule_closure_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DecaysByAClosure)


def schedule_closure_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, DecaysByAnObject)


class RestartsWarmly(OwnSchedule):
    """Restarts its cosine after 5 steps, and loses the place in the period on loading."""

    lost: tuple[str, ...] = ("T_cur",)

    def schedule_for(self, optimizer: torch.optim.Optimizer) -> CosineAnnealingWarmRestarts:
        return CosineAnnealingWarmRestarts(optimizer, T_0=5, T_mult=2)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for name in self.lost:
                setattr(self.lr_scheduler, name, 0)


class RestartsWarmlyInPlace(RestartsWarmly):
    """Keeps the place."""

    lost = ()


def warm_restart_loses_its_place(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestartsWarmly)


def warm_restart_loses_its_place_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RestartsWarmlyInPlace)


class ChainsSchedules(OwnSchedule):
    """Warms up and decays by two schedules in sequence, and saves the place in the sequence without their states."""

    saves_parts = False

    def schedule_for(self, optimizer: torch.optim.Optimizer) -> SequentialLR:
        warmup, decay = LinearLR(optimizer, 0.1, total_iters=3), LinearLR(optimizer, 1.0, 0.1, total_iters=9)
        return SequentialLR(optimizer, [warmup, ConstantLR(optimizer, 1.0), decay], milestones=[3, 4])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        made = [dict(part.state_dict()) for part in self.lr_scheduler._schedulers] if self.lr_scheduler else []
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and not self.saves_parts:
            for part, state in zip(self.lr_scheduler._schedulers, made, strict=True):
                part.load_state_dict(state)


class ChainsSchedulesAndSavesThem(ChainsSchedules):
    """Saves the states of the parts too."""

    saves_parts = True


def parts_of_a_schedule_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ChainsSchedules)


def parts_of_a_schedule_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ChainsSchedulesAndSavesThem)


class WaitsForAPlateau(TinyTrainer):
    """Lowers the rate when a metric stands still, and forgets on loading for how long it did."""

    forgets = True

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.forgets:
            self.lr_scheduler.num_bad_epochs = 0


class WaitsForAPlateauAndRemembers(WaitsForAPlateau):
    """Loads the count of bad evaluations too."""

    forgets = False


PLATEAU: dict[str, Any] = {
    "metrics": lambda prediction: {"flat": 1.0},
    "lr_scheduler_type": "reduce_lr_on_plateau",
    "lr_scheduler_kwargs": {"patience": 4, "mode": "max", "factor": 0.5},
    "metric_for_best_model": "eval_flat",
    "eval_strategy": "steps",
    "eval_steps": 1,
}


def plateau_count_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, WaitsForAPlateau, eval_rows=FewRows(), **PLATEAU)


def plateau_count_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, WaitsForAPlateauAndRemembers, eval_rows=FewRows(), **PLATEAU)


class CountsEvaluations:
    """A metric that grows with every evaluation, by a count of its own."""

    rate = 1.0

    def __init__(self) -> None:
        self.evaluations = 0

    def __call__(self, prediction: Any) -> dict[str, float]:
        self.evaluations += 1
        return {"flat": 1.0 + self.rate * self.evaluations}


class CountsEvaluationsForDisplay(CountsEvaluations):
    """Counts them for display."""

    rate = 0.0


def _moved_by(metric: CountsEvaluations, output_dir: str) -> Trainer:
    options: dict[str, Any] = {
        **PLATEAU,
        "metrics": metric,
        "lr_scheduler_kwargs": {"patience": 1, "mode": "max", "factor": 0.5},
    }
    return make_trainer(output_dir, eval_rows=FewRows(), **options)


def metric_counts_its_evaluations(output_dir: str) -> Trainer:
    return _moved_by(CountsEvaluations(), output_dir)


def metric_counts_its_evaluations_twin(output_dir: str) -> Trainer:
    return _moved_by(CountsEvaluationsForDisplay(), output_dir)


class CyclesAndIsOneStepOff(TinyTrainer):
    """Cycles rate and momentum together, and makes the schedule anew where it is resumed, one step too far."""

    off = 1

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = OneCycleLR(optimizer or self.optimizer, max_lr=1e-2, total_steps=20)
        return self.lr_scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            at = self.lr_scheduler.last_epoch - 1 + self.off
            self.lr_scheduler = OneCycleLR(self.lr_scheduler.optimizer, max_lr=1e-2, total_steps=20, last_epoch=at)


class CyclesAndIsInPlace(CyclesAndIsOneStepOff):
    """Makes it anew at the right step."""

    off = 0


def cycle_one_step_off(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CyclesAndIsOneStepOff)


def cycle_one_step_off_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CyclesAndIsInPlace)
