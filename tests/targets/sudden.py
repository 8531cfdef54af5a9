"""Set-ups whose process goes away, or never ends, or draws from a stream that nobody seeds."""

import os
import signal
import time

import numpy as np
from transformers import Trainer

from tests.targets.plain import Rows, make_trainer


class KilledAtStep3(Trainer):
    def training_step(self, *args, **kwargs):
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(*args, **kwargs)


def killed_at_step_3(output_dir):
    return make_trainer(output_dir, KilledAtStep3)


class NeverEnds(Trainer):
    def training_step(self, *args, **kwargs):
        time.sleep(600)


def never_ends(output_dir):
    return make_trainer(output_dir, NeverEnds)


class PrivateStream(Rows):
    def __init__(self):
        self.stream = np.random.default_rng()

    def __getitem__(self, index):
        row = super().__getitem__(index)
        row["input_ids"][0] = int(self.stream.integers(5, 60))
        return row


def draws_from_an_unseeded_stream(output_dir):
    return make_trainer(output_dir, rows=PrivateStream())
