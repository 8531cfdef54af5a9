"""Makes the uninterrupted runs that the tolerance `noise` measures with, and judges other runs by their spread."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from resumecheck.compare.differences import EFFECT_COMPONENTS, Difference
from resumecheck.compare.noise import RUNS, Spread, measure, numbers_of
from resumecheck.runs.bench import SOURCE_SEED, Bench, Experiment, Run, require_complete

_COMPONENTS = {
    "loss": "hidden-state",
    "gradients": "weights",
    "learning-rate": "lr-scheduler",
    "events": "hidden-state",
}


@dataclasses.dataclass(frozen=True)
class Uninterrupted:
    """Uninterrupted runs: the spread of their numbers, and the files with the tensors that they ended with."""

    spread: Spread
    ends: tuple[Path, ...]


def measure_spread(bench: Bench, experiment: Experiment, reference: Run) -> Uninterrupted:
    """Repeat the uninterrupted run until there are `RUNS` of it, and measure how far its numbers lie apart."""
    repeat = functools.partial(bench.reference, experiment, seed=SOURCE_SEED)
    others = list(bench.threads.map(lambda number: repeat(repeat=number), range(1, RUNS)))
    runs = [reference, *map(require_complete, others)]
    ends = tuple(run.directory / "end.pt" for run in runs)
    samples = [
        numbers_of(run.trajectory, mean_distances(own, [path for path in ends if path != own]))
        for run, own in zip(runs, ends, strict=True)
    ]
    return Uninterrupted(measure(samples), ends)


def outside_spread(uninterrupted: Uninterrupted, run: Run, *, after: int, expected_last: int) -> list[Difference]:
    """What shows that a run is no draw from the spread, in order of step; empty where nothing does."""
    trajectory = run.trajectory
    numbers = numbers_of(trajectory, mean_distances(run.directory / "end.pt", uninterrupted.ends), after=after)
    found: list[Difference] = []
    if trajectory.last_step != expected_last:
        step = min(trajectory.last_step, expected_last) + 1
        ends = expected_last, trajectory.last_step
        found.append(Difference(step, "number-of-steps", "counters", "last step", "", *ends, effect=True))
    for (step, rung, quantity, name), interval, value in uninterrupted.spread.outside(numbers):
        of_state = rung == "state-after-step"
        component = quantity if of_state else _COMPONENTS[rung]
        what = "log of the mean distance from uninterrupted runs" if of_state else quantity
        shown = "" if of_state else name
        found.append(Difference(step, rung, component, what, shown, interval.mean, value, effect=True))
    return sorted(found, key=lambda difference: difference.order)


def mean_distances(own: Path, others: Sequence[Path]) -> dict[str, float]:
    """Component -> mean Euclidean distance of a run's last tensors from those of other runs, in float64."""
    mine = torch.load(own, map_location="cpu", weights_only=True)
    totals: dict[str, float] = {}
    for other in others:
        theirs = torch.load(other, map_location="cpu", weights_only=True)
        squares: dict[str, float] = {}
        for key, tensor in mine.items():
            component = key.partition("|")[0]
            against = theirs.get(key)
            if component not in EFFECT_COMPONENTS or not isinstance(tensor, torch.Tensor) or not tensor.numel():
                continue
            squares.setdefault(component, 0.0)
            if isinstance(against, torch.Tensor) and against.shape == tensor.shape:
                squares[component] += float((tensor.double() - against.double()).square().sum())
            else:
                squares[component] = math.inf
        for component, square in squares.items():
            totals[component] = totals.get(component, 0.0) + math.sqrt(square) / len(others)
    return totals
