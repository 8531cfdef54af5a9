"""What a resume restored, and which arguments are no longer those of the checkpoint.

`Restored` is one part of the state with its status; `differences` sorts the arguments into those that do no harm, those
that change the trajectory, and those that transformers ignores because it takes the checkpoint's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import torch

Status = Literal["restored", "absent", "changed"]
Effect = Literal["harmless", "changes the trajectory", "ignored: the checkpoint's value is used"]

#: Arguments that are loaded with the state, whatever is given: from optimizer.pt, and from trainer_state.json.
IGNORED = {
    "optimizer": {"learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"},
    "state": {"save_steps", "logging_steps", "eval_steps"},
}
#: Arguments that say how a run is resumed; they differ in every resume.
_OF_RESUMING = {"resume_from_checkpoint", "allow_missing_state", "verify_resume"}
#: Arguments that no weight depends on.
HARMLESS = {
    "disable_tqdm",
    "include_num_input_tokens_seen",
    "include_tokens_per_second",
    "output_dir",
    "overwrite_output_dir",
    "project",
    "report_to",
    "run_name",
    "save_on_each_node",
    "save_safetensors",
    "save_strategy",
    "save_total_limit",
    "enable_jit_checkpoint",
    "skip_memory_metrics",
}
_HARMLESS_PREFIXES = ("dataloader_", "ddp_timeout", "eval_", "hub_", "log_", "logging_", "push_to_hub", "trackio_")
#: Though their names begin like those of harmless ones.
_HARMFUL = {"dataloader_drop_last"}
#: Arguments that the learning rates to come depend on.
SCHEDULE = {
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "warmup_ratio",
    "num_train_epochs",
    "max_steps",
}


@dataclasses.dataclass(frozen=True)
class Restored:
    """A part of the state: whether it is as the checkpoint has it, and a remark."""

    part: str
    status: Status
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Difference:
    """An argument that is not what it was when the checkpoint was written."""

    name: str
    before: Any
    now: Any
    effect: Effect


def differences(before: Mapping[str, Any], now: Mapping[str, Any], missing: set[str]) -> list[Difference]:
    """The arguments that differ, those that matter first; `missing` are the parts that the checkpoint lacks."""
    plain = json.loads(json.dumps(dict(now), default=str))  # as the manifest has them
    found = [
        Difference(name, before[name], plain[name], effect_of(name, missing))
        for name in sorted(before.keys() & plain.keys() - _OF_RESUMING)
        if before[name] != plain[name] and not (before[name] != before[name] and plain[name] != plain[name])
    ]
    return sorted(found, key=lambda difference: difference.effect != "changes the trajectory")


def effect_of(name: str, missing: set[str]) -> Effect:
    """What it does to a resumed run that this argument differs."""
    if name in IGNORED["state"] or (name in IGNORED["optimizer"] and not missing & {"optimizer", "scheduler"}):
        return "ignored: the checkpoint's value is used"
    if name in HARMLESS or (name.startswith(_HARMLESS_PREFIXES) and name not in _HARMFUL):
        return "harmless"
    return "changes the trajectory"


def same(live: Any, recorded: Any) -> bool:
    """Whether a state is the one that was recorded, tensors bit for bit."""
    if isinstance(live, torch.Tensor) and isinstance(recorded, torch.Tensor):
        if live.shape != recorded.shape or live.dtype != recorded.dtype:
            return False
        pair = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (live, recorded)]
        return torch.equal(*pair)
    if isinstance(live, Mapping) and isinstance(recorded, Mapping):
        return live.keys() == recorded.keys() and all(same(live[key], recorded[key]) for key in live)
    if isinstance(live, (list, tuple)) and isinstance(recorded, (list, tuple)):
        return len(live) == len(recorded) and all(map(same, live, recorded))
    return bool(live == recorded)


def table(step: int, parts: list[Restored], changed: list[Difference]) -> str:
    """The report as lines of text."""
    width = max(len(part.part) for part in parts)
    lines = [f"restored from the checkpoint of step {step}:"]
    lines += [f"  {part.part:{width}}  {part.status:8}  {part.remark}".rstrip() for part in parts]
    lines += [f"  --{one.name} was {_short(one.before)}, now {_short(one.now)}: {one.effect}" for one in changed]
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
