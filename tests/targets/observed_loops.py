"""Loops of one's own trained with and without the observer, each in a fresh process; what it must not change."""

import random

import numpy as np
import torch

from resumecheck.adapters.contract import Saving
from resumecheck.adapters.loop import LoopAdapter
from resumecheck.adapters.recorder import Captures, Recorder
from resumecheck.trajectory import TrajectoryWriter
from tests.targets.loops import AccelerateLoop, PlainLoop
from tests.targets.observed import Nothing, _sha, _streams, facts_in_fork

LOOPS = {"plain": PlainLoop, "accelerate": AccelerateLoop}
STEPS = 14


class Draws(Recorder):
    """An observer that disturbs: it draws from torch's stream once."""

    def step_ends(self, step, epoch):
        """The draw."""
        super().step_ends(step, epoch)
        if step == STEPS:
            torch.rand(1)


class TouchesBatch(Recorder):
    """An observer that disturbs: it changes the first number of a batch."""

    def batch(self, content, ids):
        """The change."""
        super().batch(content, ids)
        content["0"][0, 0] += 1


def _observed(loop, observer, directory):
    adapter = LoopAdapter(loop, directory / "output")
    writer = TrajectoryWriter(directory / "record")
    if observer == "off":
        recorder = Nothing()
    else:
        kind = {"draws": Draws, "touches": TouchesBatch}.get(observer, Recorder)
        every = frozenset(range(1, STEPS + 1))
        captures = (
            Captures(census_at=every, live_at=every, trace_at=every, batches_after=0, samples=True, live_at_end=True)
            if observer == "everything"
            else Captures()
        )
        level = "light" if observer == "light" else "full"
        recorder = kind(writer, adapter.live, level=level, captures=captures)
    at = frozenset({4, 7}) if observer == "everything" else frozenset()
    adapter.attach(recorder, Saving(own=True, at=at), lambda length: None)
    adapter.train(None)
    recorder.finish(adapter.finished_steps())
    if observer != "off":
        assert len((directory / "record" / "steps.jsonl").read_text().splitlines()) == STEPS + 1


def watch(name, observer, workers, directory):
    """Train in this process; facts of the run by name."""
    torch.set_num_threads(1)
    loop = LOOPS[name](workers)
    random.seed(1)
    np.random.seed(1)
    seen = {"streams": [], "batches": []}

    def before_forward(module, args):
        seen["streams"].append(_streams())
        seen["batches"].append(_sha(args[0]))

    loop.model.register_forward_pre_hook(before_forward)
    if observer == "unobserved":
        for _ in loop.steps():
            pass
    else:
        _observed(loop, observer, directory)
    optimizer = getattr(loop.optimizer, "optimizer", loop.optimizer)
    return {
        **seen,
        "streams at the end": _streams(),
        "weights and buffers": {name: _sha(tensor) for name, tensor in loop.model.state_dict().items()},
        "optimizer": [_sha(state) for state in optimizer.state.values()],
        "rate": optimizer.param_groups[0]["lr"],
        "position": [loop.epoch, loop.batch],
    }


def watch_in_fork(name, observer, workers, directory):
    """The facts of a run in a fresh fork of a server that has imported what it needs."""
    return facts_in_fork(watch, name, observer, workers, directory)
