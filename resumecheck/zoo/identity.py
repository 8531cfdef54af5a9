"""Objects that hold another object than the one that trains."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import BertForMaskedLM, Trainer

from resumecheck.zoo.setups import Rows, TinyTrainer, make_model, make_trainer


class LossHoldsAModel(TinyTrainer):
    """Computes its loss through the model that it was made with, and puts a new model in place when it loads."""

    moves_the_loss = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_of_the_loss = self.model

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(self.model_of_the_loss, inputs, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self.model = self.model_wrapped = copy.deepcopy(self.model)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.moves_the_loss:
            self.model_of_the_loss = self.model


class LossIsGivenTheNewModel(LossHoldsAModel):
    """Gives the new model to the loss too."""

    moves_the_loss = True


def loss_holds_the_old_model(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LossHoldsAModel)


def loss_holds_the_old_model_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LossIsGivenTheNewModel)


class PredictsTokens(Rows):
    """Rows whose labels are their tokens."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = super().__getitem__(index)
        return row | {"labels": row["input_ids"]}


class Unties(TinyTrainer):
    """Gives the output layer a copy of the embedding that it shared."""

    ties_again = False

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            output = self.model.get_output_embeddings()
            output.weight = torch.nn.Parameter(output.weight.detach().clone())
            if self.ties_again:
                self.model.tie_weights()


class UntiesAndTies(Unties):
    """Ties the two again."""

    ties_again = True


def weights_untied(output_dir: str) -> Trainer:
    return make_trainer(output_dir, Unties, model=make_model(BertForMaskedLM), rows=PredictsTokens())


def weights_untied_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, UntiesAndTies, model=make_model(BertForMaskedLM), rows=PredictsTokens())


class ReplacesALayer(TinyTrainer):
    """Replaces a layer by an equal one, when the optimizer already holds the old one's parameters."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            layers = self.model.bert.encoder.layer
            layers[1] = copy.deepcopy(layers[1])


class ReplacesALayerInTime(TinyTrainer):
    """Replaces the layer before there is an optimizer."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        layers = self.model.bert.encoder.layer
        layers[1] = copy.deepcopy(layers[1])


def layer_replaced_after_the_optimizer(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ReplacesALayer)


def layer_replaced_after_the_optimizer_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ReplacesALayerInTime)


class LeavesParametersOut(TinyTrainer):
    """Takes the norms out of the optimizer's groups after loading."""

    keeps_all = False

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            norms = {id(tensor) for name, tensor in self.model.named_parameters() if "LayerNorm" in name}
            for group in self.optimizer.param_groups:
                group["params"] = [p for p in group["params"] if self.keeps_all or id(p) not in norms]


class MakesListsOfParametersAgain(LeavesParametersOut):
    """Makes new lists of the same parameters."""

    keeps_all = True


def parameters_missing_from_optimizer(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LeavesParametersOut)


def parameters_missing_from_optimizer_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, MakesListsOfParametersAgain)


class CopiesItsModel(TinyTrainer):
    """Puts a copy of the model in place after the optimizer is made, so that the trained model is not the saved one."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.model = copy.deepcopy(self.model)


class KeepsACopyOfItsModel(TinyTrainer):
    """Keeps a copy of the loaded model for comparison, and trains the model itself."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        self.model_at_the_start = copy.deepcopy(self.model)


def trained_model_is_not_the_saved_one(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CopiesItsModel)


def trained_model_is_not_the_saved_one_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, KeepsACopyOfItsModel)
