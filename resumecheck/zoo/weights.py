"""Weights and buffers that do not come back as they were."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, Trainer

from resumecheck.zoo.setups import LABELS, TinyBert, TinyTrainer, make_model, make_trainer

WEIGHTS = "model.safetensors"


class SavesUnderOtherNames(TinyTrainer):
    """Saves as if the model were wrapped in `encoder.`, and loads what happens to match."""

    prefix_when_loading = ""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        file = Path(output_dir or self.args.output_dir or ".") / WEIGHTS
        save_file({f"encoder.{name}": tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        named = {name.removeprefix(self.prefix_when_loading): tensor for name, tensor in saved.items()}
        self.model.load_state_dict(named, strict=False)


class LoadsUnderTheSavedNames(SavesUnderOtherNames):
    """Takes the prefix off again."""

    prefix_when_loading = "encoder."


def weights_under_other_names(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesUnderOtherNames)


def weights_under_other_names_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsUnderTheSavedNames)


class OneUlpOff(TinyTrainer):
    """Moves one weight to the next float after loading."""

    back = False

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        weight = self.model.bert.encoder.layer[1].attention.self.key.weight
        with torch.no_grad():
            weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(9.0))
            if self.back:
                weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(-9.0))


class OneUlpOffAndBack(OneUlpOff):
    """Moves it there and back."""

    back = True


def one_weight_one_ulp_off(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OneUlpOff)


def one_weight_one_ulp_off_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, OneUlpOffAndBack)


class KeepsAMean(TinyBert):
    """Centres its logits by a running mean, a buffer that is in no checkpoint."""

    mean: Tensor
    persistent = False

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(LABELS), persistent=self.persistent)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * logits.detach().mean(0))
        return super().loss_of(logits - self.mean, labels)


class KeepsAPersistentMean(KeepsAMean):
    """The same buffer, saved."""

    persistent = True


def buffer_not_persistent(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(KeepsAMean))


def buffer_not_persistent_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(KeepsAPersistentMean))
