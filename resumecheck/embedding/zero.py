"""DeepSpeed (ZeRO stages 0, 1 and 2): which settings are understood, and how its files are read.

DeepSpeed writes the optimizer of each process into `global_stepN/` of the checkpoint; the manifest names these files
like any other. The schedule, the data order and the random streams are the trainer's own, as without DeepSpeed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from resumecheck.errors import UsageError

#: The files that DeepSpeed writes: weights (at stage 0 also the optimizer), and the part of the optimizer of a process.
FILES = re.compile(r"latest|zero_to_\w+\.py|global_step\d+/.+")
#: What may stand in its files beside plain state, as names and never as code that comes with them.
TYPES = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)

_STAGES = (0, 1, 2)
#: Settings with which a resume is exact. Others move state to places where this trainer cannot vouch for it.
_UNDERSTOOD = {
    "bf16",  # from stage 1 on
    "fp16",  # where it is not enabled
    "gradient_accumulation_steps",
    "gradient_clipping",
    "steps_per_print",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_optimization",
}
_UNDERSTOOD_OF_ZERO = {
    "allgather_bucket_size",
    "allgather_partitions",
    "contiguous_gradients",
    "overlap_comm",
    "reduce_bucket_size",
    "reduce_scatter",
    "round_robin_gradients",
    "stage",
}
_INSTEAD = {
    "optimizer": "give --optim, --learning_rate and the options beside them",
    "scheduler": "give --lr_scheduler_type and --warmup_steps",
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Whether a run with this configuration of DeepSpeed resumes exactly.

    Args:
        settings: the configuration, as the file of `--deepspeed` has it.

    Raises:
        UsageError: naming the setting.
    """
    zero = settings.get("zero_optimization") or {}
    if _stage(settings) not in _STAGES:
        raise UsageError(
            f"--deepspeed: zero_optimization.stage is {_stage(settings)}, expected 0, 1 or 2\n"
            "Stage 3 splits the weights over the processes, which the checkpoints of this trainer do not."
        )
    if _stage(settings) == 0 and dict(settings.get("bf16") or {}).get("enabled") is True:
        raise UsageError(
            "--deepspeed: bf16 at stage 0 cannot be used here: a resume with it is not known to be exact; give stage 1"
        )
    if dict(settings.get("fp16") or {}).get("enabled") is True:
        raise UsageError("--deepspeed: fp16 cannot be used here: a resume with it is not known to be exact; give bf16")
    unknown = [name for name in settings if name not in _UNDERSTOOD]
    unknown += [f"zero_optimization.{name}" for name in zero if name not in _UNDERSTOOD_OF_ZERO]
    if unknown:
        advice = _INSTEAD.get(unknown[0], "a resume with it is not known to be exact")
        raise UsageError(f"--deepspeed: {unknown[0]} cannot be used here: {advice}; leave it out of the file")


def check_launch(
    checkpoint: Path, before: Mapping[str, Any], settings: Mapping[str, Any] | None, world_size: int
) -> None:
    """Whether the files of a checkpoint are of the kind that this run reads.

    Args:
        checkpoint: the checkpoint.
        before: the arguments that its manifest holds.
        settings: the configuration of DeepSpeed, None without it.
        world_size: the number of processes.

    Raises:
        UsageError: one run is under DeepSpeed and the other is not, or with another stage or number of processes.
    """
    recorded = before.get("deepspeed")
    then, now = _launched(recorded, before.get("world_size")), _launched(settings, world_size)
    if then != now and (recorded is not None or settings is not None):
        raise UsageError(
            f"--resume_from_checkpoint {checkpoint}: its run was started with {then}, this one with {now}\n"
            f"Start it like that run, or start a new one from its weights: --init_from_checkpoint {checkpoint}"
        )


def _launched(settings: Mapping[str, Any] | None, world_size: Any) -> str:
    deepspeed = "no --deepspeed" if settings is None else f"--deepspeed at stage {_stage(settings)}"
    return f"{deepspeed} in {world_size} process(es)"


def _stage(settings: Mapping[str, Any]) -> Any:
    return (settings.get("zero_optimization") or {}).get("stage", 0)


def wrote(files: Iterable[str]) -> bool:
    """Whether these are the files of a checkpoint of a run under DeepSpeed."""
    return any(name.startswith("global_step") for name in files)


def optimizer_state(directory: Path, rank: int) -> dict[str, Any]:
    """The optimizer of a process, of the files of a checkpoint; call it within `plain_state_only`."""
    tag = (directory / "latest").read_text(encoding="utf-8").strip()
    own = sorted((directory / tag).glob(f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"))
    if own:
        return torch.load(own[0], map_location="cpu", weights_only=True)["optimizer_state_dict"]
    return torch.load(directory / tag / "mp_rank_00_model_states.pt", map_location="cpu", weights_only=True)[
        "optimizer"
    ]


def tensors_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Of a state of DeepSpeed's optimizer, moments, rates and weights; not the types that it has of its own."""
    parts = ("state", "param_groups", "base_optimizer_state", "single_partition_of_fp32_groups")
    return {name: state[name] for name in parts if name in state}


def holds_plain_state(path: Path) -> bool:
    """Whether a file of DeepSpeed's names no type that could run code; reads names only, and needs no DeepSpeed."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    return set(get_unsafe_globals_in_checkpoint(str(path))) <= TYPES


@contextlib.contextmanager
def plain_state_only() -> Generator[None]:
    """Within, torch unpickles nothing but plain state and `TYPES`; DeepSpeed asks it to unpickle anything."""
    import importlib

    known = [getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in TYPES]
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        with torch.serialization.safe_globals(known):
            yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


@contextlib.contextmanager
def contradictions_named() -> Generator[None]:
    """Within, the error of transformers for options that DeepSpeed's configuration contradicts is a `UsageError`."""
    try:
        yield
    except ValueError as error:
        lines = str(error).splitlines()
        if not lines or "DeepSpeed config values" not in lines[0]:
            raise
        values = "; ".join(line.removeprefix("- ") for line in lines if line.startswith("- "))
        raise UsageError(f"--deepspeed: {values}\nGive both the same value, or `auto` in the file.") from error
