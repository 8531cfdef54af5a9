"""Moments and step counts that are not restored, or not to where they belong."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import TinyTrainer, make_model, make_trainer

MOMENTS = ("exp_avg", "exp_avg_sq")


class ChangesStateWhenLoading(TinyTrainer):
    """Changes the optimizer's state after it was loaded; what is changed is up to `change`."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            for state in self.optimizer.state.values():
                self.change(state)

    def change(self, state: dict[str, Any]) -> None:
        """Change the state of one parameter."""


class RoundsMoments(ChangesStateWhenLoading):
    """Takes the moments through bfloat16."""

    through = torch.bfloat16

    def change(self, state: dict[str, Any]) -> None:
        for name in MOMENTS:
            state[name] = state[name].to(self.through).to(torch.float32)


class TakesMomentsThroughDouble(RoundsMoments):
    """Takes the moments through a type that holds them exactly."""

    through = torch.float64


def moments_rounded_to_bf16(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RoundsMoments)


def moments_rounded_to_bf16_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesMomentsThroughDouble)


class ClearsSecondMoments(ChangesStateWhenLoading):
    """Starts the second moments at zero again."""

    cleared: tuple[str, ...] = ("exp_avg_sq",)

    def change(self, state: dict[str, Any]) -> None:
        for name in self.cleared:
            if name in state:
                state[name] = torch.zeros_like(state[name])


def second_moments_cleared(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ClearsSecondMoments)


def second_moments_cleared_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ChangesStateWhenLoading, max_grad_norm=0.0)


class ClearsMomentum(ClearsSecondMoments):
    """Starts the momentum of SGD at zero again."""

    cleared = ("momentum_buffer",)


def sgd_momentum_cleared(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ClearsMomentum, optimizer=_sgd(model := make_model()), model=model)


def sgd_momentum_cleared_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, optimizer=_sgd(model := make_model()), model=model)


def _sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)


class ClearsFactoredMoments(ClearsSecondMoments):
    """Starts the row factors of Adafactor's second moments at zero again."""

    cleared = ("exp_avg_sq_row",)


def adafactor_rows_cleared(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ClearsFactoredMoments, optim="adafactor")


def adafactor_rows_cleared_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, optim="adafactor")


class TakesMaximaFromMoments(ChangesStateWhenLoading):
    """Fills in the maxima of AMSGrad from the second moments, as if they had not been saved."""

    def change(self, state: dict[str, Any]) -> None:
        state["max_exp_avg_sq"] = state["exp_avg_sq"].clone()


def amsgrad_maxima_not_restored(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesMaximaFromMoments, optimizer=_amsgrad(model := make_model()), model=model)


def amsgrad_maxima_not_restored_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, optimizer=_amsgrad(model := make_model()), model=model)


def _amsgrad(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.9), amsgrad=True)


class TransposesMoments(ChangesStateWhenLoading):
    """Loads the moments of square matrices as if their axes were exchanged."""

    def change(self, state: dict[str, Any]) -> None:
        for name in MOMENTS:
            if state[name].ndim == 2 and state[name].shape[0] == state[name].shape[1]:
                state[name] = state[name].t().contiguous()


class TransposesMomentsTwice(TransposesMoments):
    """Exchanges the axes there and back."""

    def change(self, state: dict[str, Any]) -> None:
        super().change(state)
        super().change(state)


def moments_transposed(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TransposesMoments)


def moments_transposed_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TransposesMomentsTwice)


class SavesHalfOfTheState(TinyTrainer):
    """Writes the state of every second parameter, as one rank of two would."""

    ranks = 1

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        whole = self.optimizer.state_dict()
        for rank in range(2):
            state = {number: part for number, part in whole["state"].items() if number % 2 == rank}
            torch.save(state, Path(output_dir) / f"optimizer-rank-{rank}.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            state: dict[int, Any] = {}
            for rank in range(self.ranks):
                state |= torch.load(Path(checkpoint) / f"optimizer-rank-{rank}.pt", weights_only=True)
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})


class LoadsBothHalves(SavesHalfOfTheState):
    """Loads the files of both ranks."""

    ranks = 2


def moments_of_one_rank(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesHalfOfTheState)


def moments_of_one_rank_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsBothHalves)


class MatchesMomentsByPosition(TinyTrainer):
    """Saves moments in the order of names and loads them in the order of definition, where the shapes fit."""

    by_name = False

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        state = self.optimizer.state
        named = {name: state[parameter] for name, parameter in sorted(self.model.named_parameters())}
        torch.save(named, Path(output_dir) / "moments.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            saved = torch.load(Path(checkpoint) / "moments.pt", weights_only=True)
            for name, parameter in self.model.named_parameters():
                fitting = (other for other in saved if saved[other]["exp_avg"].shape == parameter.shape)
                self.optimizer.state[parameter] = saved.pop(name if self.by_name else next(fitting))


class MatchesMomentsByName(MatchesMomentsByPosition):
    """Loads moments by name."""

    by_name = True


def moments_matched_by_position(output_dir: str) -> Trainer:
    return make_trainer(output_dir, MatchesMomentsByPosition)


def moments_matched_by_position_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, MatchesMomentsByName)


class StartsStepsAtZero(ChangesStateWhenLoading):
    """Sets the step that bias correction uses to zero."""

    def change(self, state: dict[str, Any]) -> None:
        state["step"] = torch.zeros_like(state["step"])


class TakesStepsThroughNumbers(ChangesStateWhenLoading):
    """Takes the step through a Python number."""

    def change(self, state: dict[str, Any]) -> None:
        state["step"] = torch.tensor(float(int(state["step"])))


def optimizer_steps_start_at_zero(output_dir: str) -> Trainer:
    return make_trainer(output_dir, StartsStepsAtZero)


def optimizer_steps_start_at_zero_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesStepsThroughNumbers)


class RoundsSteps(ChangesStateWhenLoading):
    """Continues an optimizer that has already made 9984 steps, and takes its step through bfloat16 on loading."""

    through = torch.bfloat16

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                moments = {name: torch.zeros_like(parameter) for name in MOMENTS}
                optimizer.state.setdefault(parameter, {"step": _step(9984), **moments})
        return optimizer

    def change(self, state: dict[str, Any]) -> None:
        state["step"] = state["step"].to(self.through).to(torch.float32)


class TakesStepsThroughDouble(RoundsSteps):
    """Takes the step through a type that holds it."""

    through = torch.float64


def _step(number: int) -> Tensor:
    return torch.tensor(float(number))


def optimizer_steps_rounded_to_bf16(output_dir: str) -> Trainer:
    return make_trainer(output_dir, RoundsSteps, adam_beta2=0.9999)


def optimizer_steps_rounded_to_bf16_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, TakesStepsThroughDouble, adam_beta2=0.9999)


#: Parameters of one shape.
_OF_ATTENTION = ("query.weight", "key.weight", "value.weight")


def _trains_attention(output_dir: str, order: Callable[[Iterable[str]], list[str]]) -> Trainer:
    """Parameters in the order of a set of their names, which is another in each process, or in order."""
    model = make_model()
    named = {name: parameter for name, parameter in model.named_parameters() if name.endswith(_OF_ATTENTION)}
    optimizer = torch.optim.AdamW([named[name] for name in order(set(named))], lr=1e-3)
    return make_trainer(output_dir, model=model, optimizer=optimizer, max_grad_norm=0.0)


def parameters_from_a_set(output_dir: str) -> Trainer:
    return _trains_attention(output_dir, list)


def parameters_from_a_set_twin(output_dir: str) -> Trainer:
    return _trains_attention(output_dir, sorted)
