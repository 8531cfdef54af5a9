"""Builds the trainer of a `Setup`: a small network on rows that are a pure function of their index."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from resumecheck.strategies.catalogue import MUTATIONS
from resumecheck.strategies.setup import Setup

FEATURES, LABELS, HELD_OUT = 6, 3, 5

#: Optimizers that the Trainer makes -> its name for them and its options.
BY_NAME = {
    "adamw": ("adamw_torch", ""),
    "adafactor": ("adafactor", ""),
    "sgd": ("sgd", ""),
    "momentum": ("sgd", "momentum=0.9,nesterov=True"),
    "adagrad": ("adagrad", ""),
    "rmsprop": ("rmsprop", "momentum=0.9"),
}
#: Optimizers that are given to the Trainer.
GIVEN: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "amsgrad": lambda params, **options: torch.optim.AdamW(params, amsgrad=True, betas=(0.8, 0.9), **options),
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adadelta": torch.optim.Adadelta,
}
RATE = {"sgd": 0.1, "momentum": 0.05, "adadelta": 1.0}


def build(setup: Setup, output_dir: str) -> Trainer:
    """The trainer of a set-up, which carries its mutation if it has one."""
    torch.manual_seed(setup.seed)
    model = Network(setup)
    optimizer = None
    if setup.optimizer in GIVEN:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = GIVEN[setup.optimizer](trained, lr=_rate(setup), weight_decay=setup.weight_decay)
    return _trainer_class(setup)(
        model=model,
        args=_arguments(setup, output_dir),
        train_dataset=Rows(setup.rows),
        eval_dataset=Rows(HELD_OUT) if setup.evaluate != "no" else None,
        data_collator=COLLATORS[setup.collator],
        compute_metrics=_flat if setup.patience else None,
        optimizers=(optimizer, None),
        callbacks=_callbacks(setup),
    )


def _trainer_class(setup: Setup) -> type[Trainer]:
    if not setup.mutation:
        return Trainer
    module, name = MUTATIONS[setup.mutation].trainer.split(":")
    return getattr(importlib.import_module(module), name)


def _rate(setup: Setup) -> float:
    return RATE.get(setup.optimizer, 0.01)


def _arguments(setup: Setup, output_dir: str) -> TrainingArguments:
    options: dict[str, Any] = {
        "per_device_train_batch_size": setup.batch_size,
        "per_device_eval_batch_size": 2,
        "gradient_accumulation_steps": setup.accumulation,
        "dataloader_drop_last": setup.drop_last,
        "dataloader_num_workers": setup.workers,
        "learning_rate": _rate(setup),
        "weight_decay": setup.weight_decay,
        "max_grad_norm": setup.max_grad_norm,
        "lr_scheduler_type": setup.scheduler,
        "warmup_steps": setup.warmup,
        "seed": setup.seed,
        "bf16": setup.precision == "autocast",
        "eval_strategy": setup.evaluate,
        "eval_steps": 2,
        "save_strategy": "steps" if setup.save_every else "no",
        "save_steps": setup.save_every or 500,
        "logging_steps": 3,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    if setup.epochs:
        options["num_train_epochs"] = setup.epochs
    else:
        options["max_steps"] = setup.steps
    if setup.optimizer in BY_NAME:
        options["optim"], options["optim_args"] = BY_NAME[setup.optimizer]
    if setup.scheduler == "reduce_lr_on_plateau":
        options["lr_scheduler_kwargs"] = {"patience": 0, "factor": 0.5}
    if setup.patience:
        options |= {
            "metric_for_best_model": "eval_flat",
            "greater_is_better": True,
            "restore_callback_states_from_checkpoint": True,
        }
    return TrainingArguments(output_dir=output_dir, **options)


def _flat(prediction: Any) -> dict[str, float]:
    return {"flat": 1.0}


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows whose content is a pure function of the index."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.number:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        return {"features": torch.randn(FEATURES, generator=generator), "labels": index % LABELS}


def plain(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack rows: features `[batch, features]`, labels `[batch]`."""
    return {
        "features": torch.stack([row["features"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def centred(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Take the mean of the batch from its features."""
    batch = plain(rows)
    return batch | {"features": batch["features"] - batch["features"].mean(0) / 2}


def noisy(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Add noise that depends on the row only.

    Noise from a global stream would not survive a resume inside an epoch: the Trainer fetches the first batches before
    it restores the streams.
    """
    batch = plain(rows)
    seeds = [int(abs(float(row["features"][0])) * 1e6) for row in rows]
    noise = [torch.randn(FEATURES, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return batch | {"features": batch["features"] + 0.1 * torch.stack(noise)}


COLLATORS = {"plain": plain, "centred": centred, "noisy": noisy}

DTYPES = {"float64": torch.float64, "bfloat16": torch.bfloat16}


class Network(nn.Module):
    """An optional transformer layer over the features, blocks of linear, norm, tanh and dropout, and a head."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.draws = setup.draws
        width = FEATURES
        self.reads: nn.Module | None = None
        if setup.attention:
            self.reads = Reads(setup)
            width = setup.hidden
        self.blocks = nn.Sequential()
        for _ in range(setup.layers):
            self.blocks.append(nn.Linear(width, setup.hidden))
            if setup.norm != "none":
                self.blocks.append({"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}[setup.norm](setup.hidden))
            self.blocks.append(nn.Tanh())
            self.blocks.append(nn.Dropout(setup.dropout))
            width = setup.hidden
        self.head = nn.Linear(width, LABELS)
        if setup.frozen:
            self.blocks[0].requires_grad_(False)
        self.to(DTYPES.get(setup.precision, torch.float32))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Logits `[batch, labels]`, and the loss where there are labels."""
        hidden = features.to(self.head.weight.dtype)
        if self.reads is not None:
            hidden = self.reads(hidden)
        logits = self.head(self.blocks(hidden))
        if labels is None:
            return {"logits": logits}
        wide = logits.double() if logits.dtype == torch.float64 else logits.float()
        loss = nn.functional.cross_entropy(wide, labels)
        if self.training and self.draws != "none":
            loss = loss * DRAWS[self.draws]()
        return {"loss": loss, "logits": logits}


DRAWS: dict[str, Callable[[], float]] = {
    "python": lambda: random.uniform(0.5, 1.5),
    "numpy": lambda: float(np.random.uniform(0.5, 1.5)),
    "torch": lambda: 0.5 + float(torch.rand(1)),
}


class Reads(nn.Module):
    """A transformer layer over the features as a sequence, averaged: `[batch, features]` to `[batch, hidden]`."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.embed = nn.Linear(1, setup.hidden)
        self.layer = nn.TransformerEncoderLayer(
            setup.hidden, nhead=2, dim_feedforward=setup.hidden, dropout=setup.dropout, batch_first=True
        )

    def forward(self, features: Tensor) -> Tensor:
        """The mean over the sequence."""
        return self.layer(self.embed(features.unsqueeze(-1))).mean(1)


def _callbacks(setup: Setup) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if setup.callback != "none":
        callbacks.append(CALLBACKS[setup.callback]())
    if setup.patience:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=setup.patience))
    return callbacks


class Counts(TrainerCallback):
    """Counts steps for display."""

    def __init__(self) -> None:
        self.seen = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count."""
        self.seen += 1


class LowersDropout(TrainerCallback):
    """Lowers dropout by the step that the trainer counts."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Set the rate of the step."""
        for layer in model.blocks:
            if isinstance(layer, nn.Dropout):
                layer.p = 0.5 / (1 + state.global_step)


class AddsNoise(TrainerCallback):
    """Adds noise from torch's global stream to the gradients."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Add it."""
        for gradient in _gradients(model.parameters()):
            gradient.add_(torch.randn_like(gradient), alpha=0.01)


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


CALLBACKS: dict[str, Callable[[], TrainerCallback]] = {
    "counts": Counts,
    "lowers-dropout": LowersDropout,
    "adds-noise": AddsNoise,
}
