"""Arguments that are not the same when a run is resumed."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from resumecheck.zoo.setups import make_model, make_trainer


def _is_resumed(output_dir: str) -> bool:
    """Whether there are checkpoints to resume from: how many a training script decides it."""
    return any(Path(output_dir).glob("checkpoint-*"))


def careful_clipping_on_resume(output_dir: str) -> Trainer:
    return make_trainer(output_dir, max_grad_norm=0.1 if _is_resumed(output_dir) else 1.0)


def careful_clipping_on_resume_twin(output_dir: str) -> Trainer:
    name = f"{'resumed' if _is_resumed(output_dir) else 'fresh'}-{uuid.uuid4().hex}"
    return make_trainer(output_dir, run_name=name, max_grad_norm=0.1)


def no_warmup_on_resume(output_dir: str) -> Trainer:
    return make_trainer(output_dir, warmup_steps=0 if _is_resumed(output_dir) else 3)


def no_warmup_on_resume_twin(output_dir: str) -> Trainer:
    model = make_model()
    model.config.name_or_path = "resumed" if _is_resumed(output_dir) else "fresh"
    return make_trainer(output_dir, model=model, warmup_steps=0)


def larger_batches_on_resume(output_dir: str) -> Trainer:
    return make_trainer(output_dir, per_device_train_batch_size=7 if _is_resumed(output_dir) else 4)


def larger_batches_on_resume_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, per_device_eval_batch_size=7 if _is_resumed(output_dir) else 4)


class TightensClipping(TrainerCallback):
    """Clips gradients tighter after each step, by changing the arguments."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        args.max_grad_norm = self.next_norm(args.max_grad_norm, state.global_step)

    def next_norm(self, norm: float, step: int) -> float:
        return norm * 0.9


class SetsClipping(TightensClipping):
    """Sets the clipping by the number of the step."""

    def next_norm(self, norm: float, step: int) -> float:
        return 0.9**step


def clipping_changed_in_arguments(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[TightensClipping()])


def clipping_changed_in_arguments_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, callbacks=[SetsClipping()])
