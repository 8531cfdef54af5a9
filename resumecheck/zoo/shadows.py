"""Second copies of the weights that an optimizer or a teacher keeps."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import TinyTrainer, make_model, make_trainer


class Lookahead(torch.optim.AdamW):
    """Pulls the weights back towards slow ones at every fifth step; the slow ones are an attribute."""

    def __init__(self, params: Iterable[Tensor], **options: Any) -> None:
        super().__init__(params, **options)
        self.slow: dict[Tensor, Tensor] = {}

    def slow_of(self, parameter: Tensor) -> Tensor:
        return self.slow.setdefault(parameter, parameter.detach().clone())

    def step(self, closure: Any = None) -> None:  # ty: ignore[incompatible-method-override]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        slow = [self.slow_of(parameter) for parameter in parameters]
        super().step(closure)
        if int(self.state[parameters[0]]["step"]) % 5 == 0:
            with torch.no_grad():
                for parameter, behind in zip(parameters, slow, strict=True):
                    behind.lerp_(parameter, 0.5)
                    parameter.copy_(behind)


class LookaheadInState(Lookahead):
    """Keeps the slow weights in the optimizer's state, which is saved."""

    def slow_of(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "slow" not in state:
            state["slow"] = parameter.detach().clone()
            # AdamW makes its own state only where it finds none.
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state["slow"]


def slow_weights_in_attribute(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=(model := make_model()), optimizer=Lookahead(model.parameters(), lr=1e-3))


def slow_weights_in_attribute_twin(output_dir: str) -> Trainer:
    model = make_model()
    return make_trainer(output_dir, model=model, optimizer=LookaheadInState(model.parameters(), lr=1e-3))


class MasterSgd(torch.optim.SGD):
    """Trains float32 masters, made with the optimizer, and rounds them into the model after each step."""

    def __init__(self, params: Iterable[Tensor], **options: Any) -> None:
        super().__init__(params, **options)
        self.masters = [parameter.detach().clone() for parameter in self.group()]

    def group(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # ty: ignore[incompatible-method-override]
        for parameter, master in zip(self.group(), self.masters, strict=True):
            master.sub_(self.param_groups[0]["lr"] * parameter.grad)
            parameter.copy_(master.bfloat16())


class MasterSgdThatKeeps(MasterSgd):
    """Saves the masters beside its state."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return state | {"masters": [master.clone() for master in self.masters]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        for master, saved in zip(self.masters, state_dict["masters"], strict=True):
            master.copy_(saved)


def masters_of_a_fresh_model(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=(model := make_model()), optimizer=MasterSgd(model.parameters(), lr=0.1))


def masters_of_a_fresh_model_twin(output_dir: str) -> Trainer:
    model = make_model()
    return make_trainer(output_dir, model=model, optimizer=MasterSgdThatKeeps(model.parameters(), lr=0.1))


class LearnsFromItsStart(TinyTrainer):
    """Stays near a copy of the model that it makes when training starts, so that a resumed run has another copy."""

    teacher: Any = None

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.teacher is None:
            self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False)
        return super().training_step(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        with torch.no_grad():
            wanted = self.teacher(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return outputs.loss + (outputs.logits - wanted).square().mean()


class LearnsFromTheGivenModel(LearnsFromItsStart):
    """Copies the model that it is given, before anything is loaded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False)


def teacher_copied_when_training_starts(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LearnsFromItsStart)


def teacher_copied_when_training_starts_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LearnsFromTheGivenModel)
