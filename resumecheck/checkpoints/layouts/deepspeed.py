"""DeepSpeed: a directory with `latest` and one directory for each tag, with a file for each rank.

Source: DeepSpeed's runtime/engine.py (`save_checkpoint`, `load_checkpoint`, `_get_ckpt_name`, `_get_zero_ckpt_name`)
and the files that its guides to ZeRO and to Universal Checkpointing show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resumecheck.checkpoints.diagnosis import Loss, Problem
from resumecheck.checkpoints.layouts.layout import (
    MODEL,
    OPTIMIZER,
    Contents,
    Layout,
    Need,
    Piece,
    count,
    counts,
    mapping,
    missing_ranks,
)
from resumecheck.checkpoints.reading.torch_file import TorchFile

_MODEL = r"(zero_pp_rank_\d+_)?mp_rank_\d+_model_states\.pt|layer_\d+-model_.*\.pt"
_OPTIMIZER = r"(bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_optim_states\.pt"
_NAME = re.compile(r"global_step(\d{1,15})")

#: Keys of the file of a rank that DeepSpeed writes itself; any other was given as `client_state`.
_OWN = {
    "module", "buffer_names", "optimizer", "param_shapes", "frozen_param_shapes", "shared_params",
    "frozen_param_fragments", "lr_scheduler", "data_sampler", "random_ltd", "sparse_tensor_module_names",
    "skipped_steps", "global_steps", "global_samples", "dp_world_size", "mp_world_size", "ds_config", "ds_version",
}  # fmt: skip


def _bears_marks(contents: Contents) -> bool:
    return contents.has(f"{_MODEL}|{_OPTIMIZER}") or _NAME.fullmatch(contents.path.name) is not None


def _rank(contents: Contents) -> dict[Any, Any]:
    """What the file of the first rank says."""
    for name in contents.matching(_MODEL):
        file = contents.values.get(name)
        if isinstance(file, TorchFile) and isinstance(file.value, dict):
            return file.value
    return {}


def _steps(contents: Contents) -> dict[str, int]:
    match = _NAME.fullmatch(contents.path.resolve().name)
    found = counts(name=int(match[1])) if match else {}
    state = _rank(contents)
    schedule = mapping(state.get("lr_scheduler")).get("last_batch_iteration")
    return found | counts(**{"model states": state.get("global_steps"), "schedule": schedule})


def _problems(contents: Contents) -> Iterator[Problem]:
    steps = _steps(contents)
    run = steps.get("model states")
    if run is not None and steps.get("name", run) != run:
        yield Problem("disagreement", "", f"the files are at step {run}, the tag says {steps['name']}")
    yield from missing_ranks(
        contents, r"(?:bf16_|fp16_)?zero_pp_rank_(\d{1,9})_mp_rank_00_optim_states\.pt", "the optimizer"
    )
    present = len(contents.matching(_OPTIMIZER))
    sizes = [count(_rank(contents).get(key)) for key in ("dp_world_size", "mp_world_size")]
    wanted = (sizes[0] or 0) * (sizes[1] or 1)
    if present and wanted > present:
        message = f"{wanted - present} of {wanted} shards of the optimizer are missing (one for each rank)"
        yield Problem("missing", "", message)
    latest = contents.path.parent / "latest"
    if not latest.is_file():
        message = "latest is missing beside the tags: load_checkpoint without a tag loads nothing, with a warning only"
        yield Problem("missing", "latest", message)


def _losses(contents: Contents) -> Iterator[Loss]:
    given = [str(key) for key in _rank(contents) if key not in _OWN]
    told = f" (client_state holds {', '.join(given[:4])[:80]})" if given else ""
    for name in ("rng-python", "rng-numpy", "rng-torch", "rng-cuda"):
        if not any("rng" in key or "random" in key for key in given):
            yield Loss(name, "never saved", True, f"DeepSpeed saves no random stream; give it as client_state{told}")
    if _rank(contents).get("lr_scheduler") is None:
        yield Loss("lr-scheduler", "never saved", True, "only a schedule that DeepSpeed itself steps is saved")
    if _rank(contents).get("data_sampler") is None:
        for name in ("data-order", "data-position"):
            yield Loss(name, "never saved", True, f"DeepSpeed saves no position in the data{told}")


def _resume(path: Path) -> str:
    return f"engine.load_checkpoint({str(path.parent)!r}, tag={path.name!r})"


LAYOUT = Layout(
    framework="DeepSpeed",
    marks=_bears_marks,
    pieces=(
        Piece(_MODEL, (*MODEL, "counters", "lr-scheduler"), "weights, counters, schedule", "torch", objects=True),
        Piece(_OPTIMIZER, OPTIMIZER, "a rank's share of the optimizer", "torch", objects=True),
        Piece(r"zero_to_fp32\.py", (), "a program that makes weights of it; it is not run"),
    ),
    needs=(
        Need("mp_rank_00_model_states.pt", _MODEL, (*MODEL, "counters", "lr-scheduler"), False, "loading fails"),
        Need(
            "zero_pp_rank_*_optim_states.pt",
            f"{_OPTIMIZER}|mp_rank_.*",  # without ZeRO the optimizer is in the file of the model
            OPTIMIZER,
            False,
            "loading fails where ZeRO is on",
        ),
    ),
    steps=_steps,
    resume=_resume,
    problems=_problems,
    losses=_losses,
    instead="Give the directory above the tag, and the tag; on as many ranks, or by way of a universal checkpoint.",
)
