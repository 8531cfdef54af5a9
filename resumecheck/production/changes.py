"""What is not the same in two segments of a run: versions, arguments, device, processes, threads."""

from __future__ import annotations

import dataclasses
from typing import Any

#: Arguments that say what is logged, kept, shown or sent, and begin with this: no step depends on them.
_OUTSIDE_THE_STEP = (
    "logging_",
    "log_",
    "save_",
    "hub_",
    "push_to_hub",
    "report_to",
    "run_name",
    "disable_tqdm",
    "project",
)
#: Arguments of `resumecheck train` that say how this start of the run is made.
_OF_THE_START = ("verify_resume", "allow_missing_state", "record", "overwrite_output_dir")


@dataclasses.dataclass(frozen=True)
class Changes:
    """What has changed.

    Attributes:
        words: what a step can depend on, in words; empty where nothing has changed.
        device: the change of the kind of device, empty where there is none.
        notes: everything that has changed, a sentence for each kind.
    """

    words: str
    device: str
    notes: tuple[str, ...]


def changes(before: dict[str, Any], now: dict[str, Any]) -> Changes:
    """Compare the facts of two segments."""
    arguments = _changed(before, now, "arguments")
    environment = _changed(before, now, "environment")
    for name in _OF_THE_START:
        arguments.pop(name, None)
    lengths = _changed({"run": before}, {"run": now}, "run", only=("max_steps", "steps_per_epoch"))
    kinds = {
        "arguments": arguments,
        "versions": _changed(before, now, "versions"),
        "environment": environment,
        "length of the run": lengths,
        "place": _changed({"run": before}, {"run": now}, "run", only=("output_dir",)),
    }
    acting = {
        **{name: text for name, text in arguments.items() if not name.startswith(_OUTSIDE_THE_STEP)},
        **kinds["versions"],
        **environment,
        **lengths,
    }
    return Changes(
        words="; ".join(list(acting.values())[:5]),
        device=environment.get("device", ""),
        notes=tuple(f"changed {kind}: {'; '.join(texts.values())}" for kind, texts in kinds.items() if texts),
    )


def _changed(
    before: dict[str, Any], now: dict[str, Any], kind: str, only: tuple[str, ...] | None = None
) -> dict[str, str]:
    sides = [side.get(kind) for side in (before, now)]
    first, second = (side if isinstance(side, dict) else {} for side in sides)
    names = only or tuple({**first, **second})
    return {
        name: f"{name}: expected {first.get(name)!r}, got {second.get(name)!r}"
        for name in names
        if first.get(name) != second.get(name)
    }
