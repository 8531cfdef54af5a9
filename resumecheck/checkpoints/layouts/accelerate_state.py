"""accelerate's `save_state`: what was passed to `prepare` or registered, and nothing else.

Source: accelerate 1.15.0, checkpointing.py (`save_accelerator_state`, `load_accelerator_state`); issues 2574, 2823,
3996.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from resumecheck.checkpoints.diagnosis import Loss, Problem
from resumecheck.checkpoints.layouts.distributed_checkpoint import sharded_problems
from resumecheck.checkpoints.layouts.layout import (
    MODEL,
    OPTIMIZER,
    RNG,
    Contents,
    Layout,
    Need,
    Piece,
    counts,
    mapping,
    missing_ranks,
    optimizer_step,
)
from resumecheck.checkpoints.reading.torch_file import TorchFile

_NAME = re.compile(r"checkpoint_(\d{1,15})")


def _bears_marks(contents: Contents) -> bool:
    return contents.has(r"random_states_\d+\.pkl|custom_checkpoint_\d+\.pkl") or (
        contents.has(r"optimizer\.bin|scheduler\.bin") and not contents.has(r"trainer_state\.json")
    )


def _steps(contents: Contents) -> dict[str, int]:
    """Of the optimizers and schedules. The Accelerator's own count begins anew with each epoch, and is left out."""
    found: dict[str, int] = {}
    for name in contents.matching(r"(optimizer|scheduler)(_\d+)?\.bin"):
        file = contents.values.get(name)
        if isinstance(file, TorchFile):
            state = mapping(file.value)
            of_optimizer = name.startswith("optimizer")
            step = optimizer_step(file, state) if of_optimizer else file.number(state.get("last_epoch"))
            found |= counts(**{name: step})
    return found


def _problems(contents: Contents) -> Iterator[Problem]:
    yield from missing_ranks(contents, r"random_states_(\d{1,9})\.pkl", "the random streams")
    yield from sharded_problems(contents)


def _losses(contents: Contents) -> Iterator[Loss]:
    why = "accelerate saves no sampler: the resumed run draws the order of the epoch anew"
    yield Loss("data-order", "never saved", True, why)
    if not contents.has(r"dl_state_dict(_\d+)?\.bin"):
        why = "put back only by your own skip_first_batches, or with use_stateful_dataloader"
        yield Loss("data-position", "never saved", True, why)
    if not contents.has(r"custom_checkpoint_\d+\.pkl"):
        why = "step and epoch are yours to save: register_for_checkpointing, or a file of your own"
        yield Loss("counters", "never saved", True, why)
    if not contents.has(r"scaler\.pt"):
        yield Loss("grad-scaler", "missing", True, "there is no scaler.pt; a run in fp16 needs one")
    why = "what was neither prepared nor registered with register_for_checkpointing"
    yield Loss("hidden-state", "never saved", True, why)


def _resume(path: Path) -> str:
    return f"accelerator.load_state({str(path)!r}), after prepare(); then skip_first_batches for what was seen"


LAYOUT = Layout(
    framework="accelerate",
    marks=_bears_marks,
    pieces=(
        Piece(r"[^/]*\.safetensors", MODEL, "the weights", "safetensors"),
        Piece(r"(pytorch_model|model)[^/]*\.bin", MODEL, "the weights", "torch"),
        Piece(r"optimizer(_\d+)?\.bin", OPTIMIZER, "the optimizer", "torch"),
        Piece(r"scheduler(_\d+)?\.bin", ("lr-scheduler",), "the learning-rate schedule", "torch"),
        Piece(r"sampler(_\d+)?\.bin", ("data-order",), "the sampler", "torch", objects=True),
        Piece(r"dl_state_dict(_\d+)?\.bin", ("data-position",), "how far into the data", "torch"),
        Piece(r"scaler\.pt", ("grad-scaler",), "the loss scale", "torch"),
        Piece(r"random_states_\d+\.pkl", RNG, "the random streams", "torch"),
        Piece(r"[^/]+/\.metadata", (), "what is in which shard", "torch", objects=True),
        Piece(r"pytorch_model_fsdp[^/]*/.*\.distcp", MODEL, "a shard of the weights"),
        Piece(r"optimizer_\d+/.*\.distcp", OPTIMIZER, "a shard of the optimizer"),
        Piece(r"custom_checkpoint_\d+\.pkl", (), "the state of a registered object", "torch"),
    ),
    needs=(
        Need(
            "model.safetensors",
            r"(model|pytorch_model)[^/]*\.(safetensors|bin)|pytorch_model_fsdp.*|pytorch_model/.*",
            MODEL,
            False,
            "load_state fails where a model is prepared",
        ),
        Need(
            "optimizer.bin",
            r"optimizer(_\d+)?\.bin|optimizer_\d+/.*|pytorch_model/.*",
            OPTIMIZER,
            False,
            "load_state fails where an optimizer is prepared; one that is not prepared is not saved",
        ),
        Need(
            "scheduler.bin",
            r"scheduler(_\d+)?\.bin",
            ("lr-scheduler",),
            True,
            "a schedule that was not passed to prepare() is not saved, and starts anew",
            optional=True,
        ),
        Need(
            "random_states_0.pkl",
            r"random_states_0\.pkl",
            RNG,
            True,
            "load_state goes on with new random streams and writes one line to the log",
        ),
    ),
    steps=_steps,
    resume=_resume,
    problems=_problems,
    losses=_losses,
    instead="Give the directory that save_state wrote itself; under automatic naming that is checkpoints/checkpoint_N.",
)
