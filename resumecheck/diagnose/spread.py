"""Makes the uninterrupted runs that the tolerance `noise` measures with, and judges other runs by their spread."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import xxhash

from resumecheck.compare.differences import EFFECT_COMPONENTS, Difference
from resumecheck.compare.noise import RUNS, Spread, measure, numbers_of
from resumecheck.runs.bench import SOURCE_SEED, Bench, Experiment, Run, require_complete

_COMPONENTS = {
    "loss": "hidden-state",
    "gradients": "weights",
    "learning-rate": "lr-scheduler",
    "events": "hidden-state",
}


def measure_spread(bench: Bench, experiment: Experiment, reference: Run) -> Spread:
    """Repeat the uninterrupted run until there are `RUNS` of it, and measure how far its numbers lie apart."""
    repeat = functools.partial(bench.reference, experiment, seed=SOURCE_SEED)
    others = list(bench.threads.map(lambda number: repeat(repeat=number), range(1, RUNS)))
    runs = [reference, *map(require_complete, others)]
    return measure([numbers_of(run.trajectory, projections(run.directory / "end.pt")) for run in runs])


def outside_spread(spread: Spread, run: Run, *, after: int, expected_last: int) -> list[Difference]:
    """What shows that a run is no draw from the spread, in order of step; empty where nothing does."""
    trajectory = run.trajectory
    numbers = numbers_of(trajectory, projections(run.directory / "end.pt"), after=after)
    found: list[Difference] = []
    if trajectory.last_step != expected_last:
        step = min(trajectory.last_step, expected_last) + 1
        ends = expected_last, trajectory.last_step
        found.append(Difference(step, "number-of-steps", "counters", "last step", "", *ends, effect=True))
    for (step, rung, quantity, name), interval, value in spread.outside(numbers):
        component, _, rest = (
            quantity.partition(" ") if rung == "state-after-step" else (_COMPONENTS[rung], "", quantity)
        )
        what = rest or quantity
        if rung == "state-after-step":
            what += " (projection)"
        found.append(Difference(step, rung, component, what, name, interval.mean, value, effect=True))
    return sorted(found, key=lambda difference: difference.order)


def projections(path: Path) -> dict[str, float]:
    """One number for each tensor that a run ended with: its product with a fixed vector of signs, in float64."""
    if not path.exists():
        return {}
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return {
        key: float(tensor.detach().reshape(-1).double() @ _signs(key, tensor.numel()))
        for key, tensor in stored.items()
        if isinstance(tensor, torch.Tensor)
        and tensor.is_floating_point()
        and tensor.numel()
        and key.partition("|")[0] in EFFECT_COMPONENTS
    }


def _signs(key: str, count: int) -> torch.Tensor:
    """A vector of +1 and -1 that depends on the name alone; drawn from a generator of its own."""
    generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(key.encode()) % 2**63)
    return torch.randint(0, 2, (count,), generator=generator, dtype=torch.float64) * 2 - 1
