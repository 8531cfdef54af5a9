"""What is wrong with the data of a step: its order, the position in it, or the content of the samples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resumecheck.compare.differences import Difference
from resumecheck.trajectory import Row, Trajectory

DATA = frozenset({"data-order", "data-position", "data-content"})


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples of an uninterrupted and of a resumed run by content: step -> a digest of each sample."""

    expected: dict[int, list[str]]
    got: dict[int, list[str]]


def indices_tell(step: int, expected: Trajectory, got: Trajectory) -> bool:
    """Whether the indices of the samples say what is wrong at `step`: they are known, and not the same."""
    pair = expected.rows[step].ids, got.rows[step].ids
    return None not in pair and pair[0] != pair[1]


def read_samples(directory: Path) -> dict[int, list[str]] | None:
    """The samples that a run noted, by step; None where its batches do not show them."""
    try:
        lines = (directory / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found: dict[int, list[str]] = {}
    for line in lines:
        step, samples = json.loads(line)
        if samples is None:
            return None
        found.setdefault(step, []).extend(samples)
    return found


def classify_data(
    data: Sequence[Difference], expected: Trajectory, got: Trajectory, samples: Samples | None
) -> tuple[str, str, Difference]:
    """Order, position or content: from the indices of the samples where they tell, else from what the samples hold.

    Args:
        data: the differences in the data, in causal order.
        expected: the uninterrupted run.
        got: the resumed run.
        samples: the samples by content, None where they are not known.

    Returns:
        (component, the evidence in words, the difference that shows it).
    """
    first = data[0]
    step = first.step
    before, now = expected.rows[step], got.rows[step]
    if indices_tell(step, expected, got):
        detail = f"step {step} expected samples {_few(before.ids)}, got {_few(now.ids)}"
        seen = [sample for row in _same_epoch(expected, step) for sample in row.ids or ()]
        return "data-position" if _contains(seen, now.ids or []) else "data-order", detail, first
    elsewhere = _elsewhere(step, samples) if samples is not None else None
    if before.ids is not None and before.ids == now.ids:
        content = next((difference for difference in data if difference.component == "data-content"), first)
        if elsewhere is not None:
            detail = f"step {step} has the indices {_few(now.ids)} as expected, and {elsewhere[1]}"
            return "data-content", detail, content
        return "data-content", f"step {step} has the samples {_few(now.ids)} as expected, with other content", content
    batch = [micro.batch for micro in now.micro]
    for row in expected.rows.values():
        if row.step != step and [micro.batch for micro in row.micro] == batch:
            return "data-position", f"step {step} got the batch that belongs to step {row.step}", first
    if elsewhere is not None:
        return elsewhere[0], f"step {step} got {elsewhere[1]}", first
    return "data-content", f"step {step} got a batch that the uninterrupted run never had", first


def _elsewhere(step: int, samples: Samples) -> tuple[str, str] | None:
    """Order or position, where most samples that do not belong to the step belong to other steps; else None."""
    due, here = samples.expected.get(step, []), samples.got.get(step, [])
    strangers = [sample for sample in here if sample not in due]
    steps_of = {sample: number for number, part in samples.expected.items() if number != step for sample in part}
    known = [sample for sample in strangers if sample in steps_of]
    if not strangers and sorted(due) == sorted(here):
        return "data-order", "its samples in another order within the batch"
    if not known or 2 * len(known) < len(strangers):
        return None
    sequence = [sample for number in sorted(samples.expected) for sample in samples.expected[number]]
    component = "data-position" if _contains(sequence, here) else "data-order"
    return component, f"samples that belong to {_steps(sorted({steps_of[sample] for sample in known}))}"


def _steps(numbers: list[int]) -> str:
    return f"step {numbers[0]}" if len(numbers) == 1 else f"steps {', '.join(map(str, numbers[:5]))}"


def _same_epoch(run: Trajectory, step: int) -> list[Row]:
    epoch = _epoch(run, step)
    return [row for row in run.rows.values() if not row.start and _epoch(run, row.step) == epoch]


def _epoch(run: Trajectory, step: int) -> int | None:
    per_epoch = run.facts.get("steps_per_epoch")
    return (step - 1) // per_epoch if per_epoch else None


def _contains(sequence: list[Any], part: list[Any]) -> bool:
    return any(sequence[start : start + len(part)] == part for start in range(len(sequence) - len(part) + 1))


def _few(ids: list[Any] | None) -> str:
    ids = ids or []
    return "[" + ", ".join(map(str, ids[:6])) + (", ...]" if len(ids) > 6 else "]")
