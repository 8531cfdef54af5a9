"""What a resume restored, and which arguments are no longer those of the checkpoint.

`Restored` is one part of the state with its status; `differences` are the arguments that differ, each with its effect
(`effects.py`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import torch

from resumecheck.embedding.effects import HARMFUL, NOT_COMPARED, Effect, effect_of
from resumecheck.errors import UsageError

Status = Literal["restored", "absent", "changed"]

#: In the place of a value that a checkpoint does not hold, or a run does not have.
_NONE = "not there"
#: Recorded like arguments, though nobody gives them.
_NO_OPTIONS = {"model_config", "tokenizer", "world_size", "device", "n_gpu"}


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

    @property
    def option(self) -> str:
        """Its name as it is given; what the launch or the model brings along is no option."""
        return self.name if self.name.partition(".")[0] in _NO_OPTIONS else f"--{self.name}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any], missing: set[str]) -> list[Difference]:
    """The arguments that differ, those that matter first; `missing` are the parts that the checkpoint lacks.

    One that only the checkpoint or only this run has, say of another version of transformers, differs too; it is not
    named where it is harmless.
    """
    then, plain = _flat(before), _flat(json.loads(json.dumps(dict(now), default=str)))  # as the manifest has them
    found: list[Difference] = []
    for name in sorted((then.keys() | plain.keys()) - NOT_COMPARED.keys()):
        effect = effect_of(name, missing)
        if name not in then or name not in plain:
            if effect in HARMFUL:
                values = then.get(name, _NONE), plain.get(name, _NONE)
                of_model = name.startswith("model_config.")
                found.append(Difference(name, *values, effect if of_model else "not known to be harmless"))
        elif then[name] != plain[name] and not (then[name] != then[name] and plain[name] != plain[name]):
            found.append(Difference(name, then[name], plain[name], effect))
    return sorted(found, key=lambda difference: difference.effect not in HARMFUL)


def check_arguments(directory: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Whether the state of a checkpoint fits the run with these arguments.

    Raises:
        UsageError: naming each that does not fit.
    """
    refused = [one for one in differences(before, now, set()) if one.effect == "refused"]
    if refused:
        told = ", ".join(f"{one.option} was {_short(one.before)}, now {_short(one.now)}" for one in refused)
        raise UsageError(
            f"--resume_from_checkpoint {directory}: its state does not fit this run: {told}\n"
            f"Give the arguments of the run, or start a new one from its weights: --init_from_checkpoint {directory}"
        )


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with each key of the configuration of the model as one."""
    config = arguments.get("model_config") or {}
    others = {name: value for name, value in arguments.items() if name != "model_config"}
    return {**others, **{f"model_config.{name}": value for name, value in config.items()}}


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
    lines += [f"  {one.option} was {_short(one.before)}, now {_short(one.now)}: {one.effect}" for one in changed]
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
