"""Weights that do not come back as they were."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import TinyTrainer, make_trainer

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


class LoadsNoWeights(TinyTrainer):
    """Restores optimizer and schedule, but not the model."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        pass


class LoadsWeightsOneByOne(LoadsNoWeights):
    """Has a loader of its own, which copies tensor by tensor into the parameters that train."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(saved[name])


def weights_not_loaded(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsNoWeights)


def weights_not_loaded_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, LoadsWeightsOneByOne)


class SavesInBf16(TinyTrainer):
    """Saves float32 weights as bfloat16."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, {name: tensor.bfloat16() for name, tensor in self.model.state_dict().items()})


class ExportsInBf16(TinyTrainer):
    """Writes bfloat16 weights for serving beside the checkpoint's own."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        narrow = {name: tensor.bfloat16() for name, tensor in self.model.state_dict().items()}
        save_file(narrow, Path(output_dir or ".") / "serving.safetensors")


def weights_saved_in_bf16(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesInBf16)


def weights_saved_in_bf16_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ExportsInBf16)


class InitialisesItsHeadAgain(TinyTrainer):
    """Puts a fresh head on the loaded model."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.model.classifier.reset_parameters()


class InitialisesItsHeadBeforeLoading(TinyTrainer):
    """Puts a fresh head on the model, and then loads."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self.model.classifier.reset_parameters()
        super()._load_from_checkpoint(resume_from_checkpoint, model)


def head_initialised_again(output_dir: str) -> Trainer:
    return make_trainer(output_dir, InitialisesItsHeadAgain)


def head_initialised_again_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, InitialisesItsHeadBeforeLoading)


class ExchangesLayers(TinyTrainer):
    """Loads the weights of each of two equal layers into the other one."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        self.model.load_state_dict(_exchanged(saved))


class ExchangesLayersInTheFileToo(ExchangesLayers):
    """Writes the layers in the order in which it reads them."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        file = Path(output_dir or ".") / WEIGHTS
        save_file(_exchanged(load_file(file)), file, {"format": "pt"})


def _exchanged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    other = {"layer.0.": "layer.1.", "layer.1.": "layer.0."}
    return {
        next((name.replace(one, two) for one, two in other.items() if one in name), name): tensor
        for name, tensor in tensors.items()
    }


def layers_exchanged(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ExchangesLayers)


def layers_exchanged_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, ExchangesLayersInTheFileToo)


class SavesASnapshot(TinyTrainer):
    """Saves from a copy of the weights that it makes before each step, so that a checkpoint is one step behind."""

    snapshot: dict[str, Tensor]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        self.snapshot = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return super().training_step(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, self.snapshot)


class SavesAFreshSnapshot(SavesASnapshot):
    """Brings the copy up to date when it saves."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        for name, tensor in self.model.state_dict().items():
            self.snapshot[name].copy_(tensor)
        super()._save(output_dir, state_dict)


def weights_one_step_behind(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesASnapshot)


def weights_one_step_behind_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesAFreshSnapshot)
