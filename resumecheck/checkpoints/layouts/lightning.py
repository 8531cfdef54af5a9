"""Lightning: one file `.ckpt` with a dictionary of everything.

Source: keys of a checkpoint that pytorch-lightning 2.6.6 wrote, and its trainer/connectors/checkpoint_connector.py
(`dump_checkpoint`, `restore_optimizers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from resumecheck.checkpoints.diagnosis import Loss, Problem
from resumecheck.checkpoints.layouts.layout import (
    MODEL,
    OPTIMIZER,
    Contents,
    Layout,
    Piece,
    counts,
    mapping,
    optimizer_step,
    sequence,
)
from resumecheck.checkpoints.reading.torch_file import TorchFile

#: Key -> what is lost without it.
_KEYS = {
    "state_dict": MODEL,
    "optimizer_states": OPTIMIZER,
    "lr_schedulers": ("lr-scheduler",),
    "global_step": ("counters",),
    "loops": ("counters", "data-position"),
    "callbacks": ("callbacks",),
}
_NAME = re.compile(r".*step=(\d{1,15})(-v\d+)?\.ckpt")


def _file(contents: Contents) -> tuple[TorchFile | None, dict[Any, Any]]:
    file = next((value for value in contents.values.values() if isinstance(value, TorchFile)), None)
    return file, mapping(file.value) if file is not None else {}


def _steps(contents: Contents) -> dict[str, int]:
    file, state = _file(contents)
    match = _NAME.fullmatch(contents.path.resolve().name)
    found = counts(name=int(match[1])) if match else {}
    found |= counts(global_step=state.get("global_step"))
    for optimizer in sequence(state.get("optimizer_states"))[:1]:
        found |= counts(optimizer=optimizer_step(file, optimizer))
    return found


def _problems(contents: Contents) -> Iterator[Problem]:
    file, state = _file(contents)
    if file is None:
        return
    for key in _KEYS:
        if key not in state:
            message = f"the key {key!r} is missing: the resume fails"
            if key in ("optimizer_states", "lr_schedulers", "loops", "callbacks"):
                message += "; save_weights_only leaves it out"
            yield Problem("missing", key, message)
    steps = _steps(contents)
    run = steps.get("global_step")
    if run is not None and steps.get("name", run) != run:
        yield Problem("disagreement", "", f"global_step is {run}, the file's name says {steps['name']}")
    # global_step counts the steps of all optimizers together
    if run is not None and len(sequence(state.get("optimizer_states"))) == 1 and steps.get("optimizer", run) > run:
        yield Problem("disagreement", "", f"global_step is {run}, the optimizer is at step {steps['optimizer']}")


def _losses(contents: Contents) -> Iterator[Loss]:
    file, state = _file(contents)
    if file is None:
        return
    for key, components in _KEYS.items():
        if key not in state:
            for component in components:
                yield Loss(component, "missing", False, f"the checkpoint has no {key}")
    for name in ("rng-python", "rng-numpy", "rng-torch", "rng-cuda"):
        yield Loss(name, "never saved", True, "Lightning saves no random stream; put it in on_save_checkpoint")
    loops = mapping(mapping(state.get("loops")).get("fit_loop"))
    if not mapping(loops.get("state_dict")).get("combined_loader"):
        why = "the order of a shuffled epoch is drawn anew; only a loader with a state_dict of its own is saved"
        yield Loss("data-order", "never saved", True, why)
    yield Loss("hidden-state", "never saved", True, "attributes of the module and of the data, where the run uses any")


LAYOUT = Layout(
    framework="Lightning",
    marks=lambda contents: contents.path.suffix == ".ckpt",
    pieces=(
        Piece(
            r".*\.ckpt",
            (*MODEL, *OPTIMIZER, "lr-scheduler", "counters", "callbacks"),
            "weights, optimizer, schedule, loops, callbacks",
            "torch",
            objects=True,
        ),
    ),
    needs=(),
    steps=_steps,
    resume=lambda path: f"trainer.fit(model, ckpt_path={str(path)!r})",
    problems=_problems,
    losses=_losses,
    instead="load_from_checkpoint gives a module with these weights: training it starts a new run.",
)
