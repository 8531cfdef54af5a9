"""Runs that die only when they are resumed."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainerCallback

from resumecheck.zoo.setups import TinyTrainer, make_model, make_trainer
from resumecheck.zoo.streams import LoadsBecauseItCan, LoadsIfItCan


class LoadsOrDies(LoadsIfItCan):
    """Puts an object among the saved streams that torch refuses to load."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super(LoadsIfItCan, self)._load_rng_state(checkpoint)


def streams_that_cannot_be_loaded(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsOrDies)


def streams_that_cannot_be_loaded_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsBecauseItCan)


class FreezesOnLoading(TinyTrainer):
    """Freezes the embeddings of a loaded model, so that the optimizer has fewer parameters than the saved one."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.model.bert.embeddings.requires_grad_(False)


class FreezesAlways(TinyTrainer):
    """Freezes the embeddings of every model."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.bert.embeddings.requires_grad_(False)


def fewer_parameters_on_resume(output_dir: str) -> Trainer:
    return make_trainer(output_dir, FreezesOnLoading)


def fewer_parameters_on_resume_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, FreezesAlways)


class Wrapper(torch.nn.Module):
    """A plain module around a model, which lacks what the Trainer asks of a PreTrainedModel when keys are missing."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = make_model()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


class SavesWithoutItsWrapper(TinyTrainer):
    """Saves the encoder's weights under the encoder's names."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        file = Path(output_dir or ".") / "model.safetensors"
        save_file({name.removeprefix("encoder."): tensor for name, tensor in load_file(file).items()}, file)


def wrapper_missing_from_names(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesWithoutItsWrapper, model=Wrapper())


def wrapper_missing_from_names_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=Wrapper())


class ComparesWithTheLast(TrainerCallback):
    """Looks the last step up in a history that it began when it was made."""

    def __init__(self) -> None:
        self.history: dict[int, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.history[state.global_step] = kwargs["lr_scheduler"].get_last_lr()[0]
        if state.global_step > 1:
            self.change = self.history[state.global_step] - self.last(state.global_step - 1)

    def last(self, step: int) -> float:
        return self.history[step]


class ComparesWithTheLastIfKnown(ComparesWithTheLast):
    """Takes zero where the last step is not known."""

    def last(self, step: int) -> float:
        return self.history.get(step, 0.0)


def history_without_the_last_step(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[ComparesWithTheLast()])


def history_without_the_last_step_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[ComparesWithTheLastIfKnown()])
