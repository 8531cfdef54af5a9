"""Options of the optimizer's parameter groups that are not restored."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from resumecheck.zoo.setups import TinyTrainer, make_trainer


class MakesItsScheduleAfterLoading(TinyTrainer):
    """Makes the schedule after the optimizer was loaded, which sets the rate of the groups to that of step 0."""

    last = "scheduler.pt"

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.lr_scheduler = None
            schedule: Any = self.create_scheduler(self.state.max_steps)
            schedule.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))
            if self.last == "optimizer.pt":
                self.optimizer.load_state_dict(torch.load(Path(checkpoint) / "optimizer.pt", weights_only=True))


class LoadsItsOptimizerLast(MakesItsScheduleAfterLoading):
    """Loads the optimizer once the schedule is made."""

    last = "optimizer.pt"


def rate_of_groups_reset(output_dir: str) -> Trainer:
    return make_trainer(output_dir, MakesItsScheduleAfterLoading)


def rate_of_groups_reset_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsItsOptimizerLast)


class RaisesDecay(TrainerCallback):
    """Raises the weight decay a little after each step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for group in kwargs["optimizer"].param_groups:
            group["weight_decay"] *= 1.2


class TakesDecayFromArguments(TinyTrainer):
    """Takes the weight decay from the arguments again, where the group has any."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for group in self.optimizer.param_groups:
                if group["weight_decay"]:
                    group["weight_decay"] = self.args.weight_decay


def weight_decay_from_arguments(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesDecayFromArguments, callbacks=[RaisesDecay()], weight_decay=0.1)


def weight_decay_from_arguments_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[RaisesDecay()], weight_decay=0.1)


class LowersBeta(TrainerCallback):
    """Lowers the decay of the second moments after each step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for group in kwargs["optimizer"].param_groups:
            group["betas"] = (group["betas"][0], group["betas"][1] - 0.01)


class LoadsStateWithoutGroups(TinyTrainer):
    """Loads the state of the parameters and keeps the groups as they were made, but for their rate."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        made = [dict(group) for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for group, options in zip(self.optimizer.param_groups, made, strict=True):
                group.update({name: value for name, value in options.items() if name not in ("params", "lr")})


def group_options_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsStateWithoutGroups, callbacks=[LowersBeta()])


def group_options_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[LowersBeta()])


class GroupsByLayer(TinyTrainer):
    """Trains two layers at different rates, and loads the groups in the order of their rates."""

    fastest_first = False

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            layers = self.model.bert.encoder.layer
            groups = [{"params": list(layer.parameters())} for layer in layers]
            self.optimizer = torch.optim.AdamW([groups[0] | {"lr": 2e-3}, groups[1] | {"lr": 1e-3}])
        return self.optimizer

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            state = torch.load(Path(checkpoint) / "optimizer.pt", weights_only=True)
            state["param_groups"].sort(key=lambda group: group["lr"], reverse=self.fastest_first)
            self.optimizer.load_state_dict(state)


class GroupsByLayerInTheirOrder(GroupsByLayer):
    """Sorts the groups into the order in which they are made."""

    fastest_first = True


def groups_in_another_order(output_dir: str) -> Trainer:
    return make_trainer(output_dir, GroupsByLayer)


def groups_in_another_order_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, GroupsByLayerInTheirOrder)
