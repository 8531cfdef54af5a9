"""Set-ups that are another run each time, each by chance of its own."""

import os
import random

import torch
from transformers import Trainer

from tests.targets.plain import Rows, make_trainer


class WeighsByPython(Trainer):
    """Draws from Python's stream after it was seeded from the operating system."""

    def compute_loss(self, *args, **kwargs):
        if self.state.global_step == 1:
            random.seed(os.urandom(8))
        return super().compute_loss(*args, **kwargs) * random.uniform(0.9, 1.1)


def python_stream(output_dir):
    return make_trainer(output_dir, WeighsByPython)


class Weighs(Trainer):
    """Draws from the operating system, where nobody sees it, and leaves a trace that could be the source."""

    def compute_loss(self, *args, **kwargs):
        self.leave_a_trace()
        return super().compute_loss(*args, **kwargs) * (1 + os.urandom(1)[0] / 1000)

    def leave_a_trace(self):
        pass


class UsesAKernel(Weighs):
    def leave_a_trace(self):
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))


class UsesThreads(Weighs):
    def leave_a_trace(self):
        torch.set_num_threads(2)


def kernel(output_dir):
    return make_trainer(output_dir, UsesAKernel)


def threads(output_dir):
    return make_trainer(output_dir, UsesThreads)


class FromOutside(Rows):
    def __getitem__(self, index):
        row = super().__getitem__(index)
        row["input_ids"][0] = 5 + os.urandom(1)[0] % 50
        return row


def rows_from_outside(output_dir):
    return make_trainer(output_dir, rows=FromOutside())
