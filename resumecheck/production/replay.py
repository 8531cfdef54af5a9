"""Samples that come again within an epoch: what sample ids alone tell of a resume."""

from __future__ import annotations

from typing import Any

from resumecheck.trajectory import Trajectory


def replayed(expected: Trajectory, got: Trajectory) -> tuple[str, int, list[Any]] | None:
    """Samples that the resumed run takes from an epoch in which they have been taken already.

    Known where the ids of the samples are, and where no sample comes twice in an epoch of either run by itself.

    Args:
        expected: the run that saved the checkpoint.
        got: the run that was resumed from it.

    Returns:
        (what was found, in words; its step; the samples), None where nothing was.
    """
    point, per_epoch = got.first_step, expected.facts.get("steps_per_epoch")
    if not isinstance(per_epoch, int) or per_epoch < 1 or got.facts.get("steps_per_epoch") != per_epoch:
        return None
    epoch = point // per_epoch
    seen, later = (
        _ids(run, steps)
        for run, steps in (
            (expected, range(epoch * per_epoch + 1, point + 1)),
            (got, range(point + 1, (epoch + 1) * per_epoch + 1)),
        )
    )
    if seen is None or later is None:
        return None
    for sample, step in later.items():
        if sample in seen:
            again = [other for other, number in later.items() if number == step and other in seen]
            of_steps = sorted({seen[other] for other in again})
            shown = ", ".join(map(str, again[:6]))
            return f"step {step} has the samples {shown} of step {of_steps[0]} in the same epoch again", step, again[:8]
    return None


def _ids(run: Trajectory, steps: range) -> dict[Any, int] | None:
    """Sample -> step; None where a sample comes twice or ids are not known."""
    found: dict[Any, int] = {}
    for step in steps:
        row = run.rows.get(step)
        if row is None or row.start:
            continue
        if row.ids is None or len({*row.ids}) < len(row.ids) or found.keys() & {*row.ids}:
            return None
        found |= dict.fromkeys(row.ids, step)
    return found
