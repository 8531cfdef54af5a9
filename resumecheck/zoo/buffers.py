"""Buffers that are not saved, or not as they are."""
# ruff: noqa: D102, D103 - methods override those of transformers; what a build does is told in catalogue.py

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BertConfig, Trainer

from resumecheck.zoo.setups import LABELS, TinyBert, TinyTrainer, make_model, make_trainer


class KeepsAMean(TinyBert):
    """Centres its logits by a running mean, a buffer that is in no checkpoint."""

    mean: Tensor
    persistent = False
    dtype_of_mean = torch.float32

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(LABELS, dtype=self.dtype_of_mean), persistent=self.persistent)

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


class SavesOnlyParameters(TinyTrainer):
    """Collects what it saves from `named_parameters`."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, {name: tensor.detach() for name, tensor in self.model.named_parameters()})


class SavesParametersAndBuffers(TinyTrainer):
    """Collects from `named_parameters` and `named_buffers`."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        tensors = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        super()._save(output_dir, {name: tensors[name].detach() for name in self.model.state_dict()})


def only_parameters_saved(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesOnlyParameters, model=make_model(KeepsAPersistentMean))


def only_parameters_saved_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesParametersAndBuffers, model=make_model(KeepsAPersistentMean))


class KeepsAMeanInDouble(KeepsAPersistentMean):
    """Keeps its mean in float64."""

    dtype_of_mean = torch.float64

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().loss_of(logits.double(), labels).float()


class SavesInFloat32(TinyTrainer):
    """Saves everything in float32."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, {name: tensor.float() for name, tensor in self.model.state_dict().items()})


def double_buffer_saved_in_float32(output_dir: str) -> Trainer:
    return make_trainer(output_dir, SavesInFloat32, model=make_model(KeepsAMeanInDouble))


def double_buffer_saved_in_float32_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(KeepsAMeanInDouble))


class ComparesWithAQueue(TinyBert):
    """Pushes its logits away from a queue of earlier ones; the queue is saved, the place in it is a Python number."""

    queue: Tensor

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.register_buffer("queue", torch.zeros(20, LABELS))
        self.set_place(0)

    def place(self) -> int:
        return self.next_place

    def set_place(self, place: int) -> None:
        self.next_place = place

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        place = self.place()
        distance = torch.nn.functional.cosine_similarity(logits[:, None], self.queue[None], dim=-1).mean()
        self.queue[place : place + len(logits)] = logits.detach()
        self.set_place((place + len(logits)) % len(self.queue))
        return super().loss_of(logits, labels) + distance


class ComparesWithAQueueAndItsPlace(ComparesWithAQueue):
    """The place is a buffer too."""

    next: Tensor

    def place(self) -> int:
        return int(self.next)

    def set_place(self, place: int) -> None:
        if "next" not in self._buffers:
            self.register_buffer("next", torch.tensor(0))
        self.next.fill_(place)


def queue_without_its_place(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(ComparesWithAQueue))


def queue_without_its_place_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(ComparesWithAQueueAndItsPlace))


class FollowsItself(TinyBert):
    """Learns from a running mean of its own head, whose decay rises with a count of updates kept as a number."""

    follower: Tensor

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.register_buffer("follower", torch.zeros(LABELS))
        self.updates = 0

    def decay(self) -> float:
        self.updates += 1
        return 1 - 1 / (1 + self.updates)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        decay = self.decay()
        self.follower.mul_(decay).add_((1 - decay) * logits.detach().mean(0))
        return super().loss_of(logits, labels) + (logits - self.follower).square().mean()


class FollowsItselfByABuffer(FollowsItself):
    """Counts the updates in a buffer, and again in an attribute that only a log line would use."""

    count: Tensor

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.register_buffer("count", torch.tensor(0))

    def decay(self) -> float:
        self.updates += 1
        self.count.add_(1)
        return 1 - 1 / (1 + int(self.count))


def ema_updates_as_number(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(FollowsItself))


def ema_updates_as_number_twin(output_dir: str) -> Trainer:
    return make_trainer(output_dir, model=make_model(FollowsItselfByABuffer))
