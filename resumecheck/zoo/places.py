"""State that hides outside objects: in modules, classes, functions, caches, the environment, a scratch file."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import contextvars
import functools
import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from resumecheck.zoo.setups import KeepsEverything, TinyBert, TinyTrainer, make_model, make_trainer

CALLS = 0


class CountsInModule(TinyBert):
    """Counts its calls in a global of the module."""

    effect = 0.01

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        global CALLS  # noqa: PLW0603 - this is the defect
        CALLS += 1
        return super().loss_of(logits, labels) * (1 + self.effect * CALLS)


class CountsInModuleForDisplay(CountsInModule):
    """Counts there for display."""

    effect = 0.0


def module_global(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CountsInModule))


def module_global_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CountsInModuleForDisplay))


class CountsInClass(TinyBert):
    """Counts the calls of all its instances in an attribute of the class."""

    calls = 0

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        type(self).calls += 1
        return super().loss_of(logits, labels) * (1 + 0.01 * self.calls)


class NotesTimeInClass(TinyBert):
    """Notes in the class when it was called, and under which name it runs."""

    called_at = 0.0
    run = uuid.uuid4().hex

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        type(self).called_at = time.time()
        type(self).run = uuid.uuid4().hex
        return super().loss_of(logits, labels)


def class_attribute(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CountsInClass))


def class_attribute_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(NotesTimeInClass))


def _remembers_in_its_default(
    outputs: Any,
    labels: Tensor,
    num_items_in_batch: Any = None,
    seen: list[float] = [],  # noqa: B006 - this is the defect
) -> Tensor:
    loss = torch.nn.functional.cross_entropy(outputs.logits, labels)
    seen.append(float(loss))
    return loss * sum(seen) / len(seen)


def _caches_in_its_default(
    outputs: Any,
    labels: Tensor,
    num_items_in_batch: Any = None,
    weights: dict[int, Tensor] = {},  # noqa: B006 - a cache of constants
) -> Tensor:
    classes = outputs.logits.shape[-1]
    weight = weights.setdefault(classes, torch.linspace(0.5, 1.5, classes))
    return torch.nn.functional.cross_entropy(outputs.logits, labels, weight)


def default_of_a_function(output_dir: str) -> Trainer:
    return make_trainer(output_dir, loss=_remembers_in_its_default)


def default_of_a_function_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, loss=_caches_in_its_default)


def _counts_in_its_attribute(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    function: Any = _counts_in_its_attribute
    function.calls = getattr(function, "calls", 0) + 1
    return torch.nn.functional.cross_entropy(outputs.logits, labels) * (1 + 0.01 * function.calls)


def _times_in_its_attribute(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    function: Any = _times_in_its_attribute
    function.called_at = time.perf_counter()
    return torch.nn.functional.cross_entropy(outputs.logits, labels)


def attribute_of_a_function(output_dir: str) -> Trainer:
    return make_trainer(output_dir, loss=_counts_in_its_attribute)


def attribute_of_a_function_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, loss=_times_in_its_attribute)


class CachesPrototypes(TinyBert):
    """Caches a prototype for each class when it first sees it, taken from the weights at that moment."""

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        wanted = torch.stack([self.prototype(label) for label in labels.tolist()])
        return super().loss_of(logits, labels) + (logits - wanted).square().mean()

    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033 - this is the defect
    def prototype(self, label: int) -> Tensor:
        return self.classifier.weight.detach()[:, label].clone()


class CachesTargets(CachesPrototypes):
    """Caches what is a pure function of the class."""

    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033 - a cache of constants
    def prototype(self, label: int) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(label), 3).float()


def cache_of_prototypes(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CachesPrototypes))


def cache_of_prototypes_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(CachesTargets))


class CountsInEnvironment(TinyTrainer):
    """Hands a scale from step to step in an environment variable."""

    effect = 0.95

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        scale = float(os.environ.get("ZOO_LOSS_SCALE", "1")) * self.effect
        os.environ["ZOO_LOSS_SCALE"] = str(scale)
        return super().compute_loss(*args, **kwargs) * scale


class NotesInEnvironment(CountsInEnvironment):
    """Hands on a scale that stays one."""

    effect = 1.0


def environment_variable(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CountsInEnvironment)


def environment_variable_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, NotesInEnvironment)


class WritesAScratchFile(TinyTrainer):
    """Keeps the centre that it draws logits to in a scratch file, which is empty in a new process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scratch = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the trainer

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        self.scratch.seek(0)
        read = self.scratch.read()
        centre = torch.tensor([float(text) for text in read.split()] or [0.0, 0.0, 0.0])
        self.scratch.seek(0)
        self.scratch.truncate()
        self.scratch.write(" ".join(map(repr, self.moved(centre, outputs.logits))).encode())
        return outputs.loss + (outputs.logits - centre).square().mean()

    def moved(self, centre: Tensor, logits: Tensor) -> list[float]:
        return (0.5 * centre + 0.5 * logits.detach().mean(0)).tolist()


class WritesConstants(WritesAScratchFile):
    """Writes the same centre at every step."""

    def moved(self, centre: Tensor, logits: Tensor) -> list[float]:
        return [0.0, 0.0, 0.0]


def scratch_file(output_dir: str) -> Trainer:
    return make_trainer(output_dir, WritesAScratchFile)


def scratch_file_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, WritesConstants)


class CountsInOutputDir(TinyTrainer):
    """Counts in a file of the output directory that belongs to no checkpoint, and that a new start writes anew."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.file = Path(self.args.output_dir or ".") / "count.txt"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("0", encoding="utf-8")

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        count = int(self.file.read_text(encoding="utf-8")) + 1
        self.file.write_text(str(count), encoding="utf-8")
        return super().compute_loss(*args, **kwargs) * (1 + 0.01 * count)


class CountsInOutputDirAndCheckpoints(CountsInOutputDir, KeepsEverything):
    """Saves the count with every checkpoint."""

    def keep(self) -> str:
        return self.file.read_text(encoding="utf-8")

    def put_back(self, kept: str) -> None:
        self.file.write_text(kept, encoding="utf-8")


def file_beside_the_checkpoints(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CountsInOutputDir)


def file_beside_the_checkpoints_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CountsInOutputDirAndCheckpoints)


SCALE: contextvars.ContextVar[float] = contextvars.ContextVar("SCALE", default=1.0)


class ScalesByContext(TinyBert):
    """Hands a growing scale of the loss from step to step in a context variable."""

    used = True

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        SCALE.set(SCALE.get() * 1.05)
        return super().loss_of(logits, labels) * (SCALE.get() if self.used else 1.0)


class NotesScaleInContext(ScalesByContext):
    """Notes the scale for display."""

    used = False


def context_variable(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(ScalesByContext))


def context_variable_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(NotesScaleInContext))


class CountsInAnotherModule(TinyTrainer):
    """Counts its calls in a module that it imports where it needs it, in a record that it makes when it first does."""

    effect = 0.01

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        from resumecheck.zoo import ledger

        if ledger.record is None:
            ledger.record = ledger.Record()
        ledger.record.calls += 1
        return super().compute_loss(*args, **kwargs) * (1 + self.effect * ledger.record.calls)


class CountsInAnotherModuleForDisplay(CountsInAnotherModule):
    """Counts there for display."""

    effect = 0.0


def record_in_another_module(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CountsInAnotherModule)


def record_in_another_module_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CountsInAnotherModuleForDisplay)


class CoolsByTrainerState(TinyTrainer):
    """Divides its loss by a temperature that it hangs on the Trainer's own state, which saves its fields only."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        state: Any = self.state
        state.temperature = self.temperature(state)
        return super().compute_loss(*args, **kwargs) / state.temperature

    def temperature(self, state: Any) -> float:
        return getattr(state, "temperature", 2.0) * 0.95


class CoolsByStep(CoolsByTrainerState):
    """Takes the temperature from the step."""

    def temperature(self, state: Any) -> float:
        return 2.0 * 0.95 ** (state.global_step + 1)


def attribute_of_the_trainer_state(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CoolsByTrainerState)


def attribute_of_the_trainer_state_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, CoolsByStep)
