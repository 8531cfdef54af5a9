"""Set-ups whose process goes away, or never ends, or draws from a stream that nobody seeds."""

import os
import signal
import time
from pathlib import Path

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


class KilledOnce(Trainer):
    """Something else kills the run that saves and the run that is resumed, each once; KILLED_ONCE notes it."""

    def training_step(self, *args, **kwargs):
        marks = Path(os.environ["KILLED_ONCE"])
        noted = marks.read_text() if marks.exists() else ""
        saved = any(Path(self.args.output_dir).glob("checkpoint-3"))
        name = "resumed " if self.resumed else "source "
        if self.state.global_step == 4 and saved and name not in noted:
            marks.write_text(noted + name)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(*args, **kwargs)

    resumed = False

    def _load_from_checkpoint(self, *args, **kwargs):
        self.resumed = True
        return super()._load_from_checkpoint(*args, **kwargs)


def killed_once(output_dir):
    return make_trainer(output_dir, KilledOnce)


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
