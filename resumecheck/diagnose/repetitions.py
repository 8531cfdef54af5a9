"""Runs of a check made once more, to see what they had not recorded: live state, samples, modules, tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from resumecheck.adapters.trace import Place, first_place
from resumecheck.compare.differences import Difference
from resumecheck.diagnose.data import DATA, Samples, indices_tell, read_samples
from resumecheck.diagnose.divergence import divergence_of, with_float_distance, with_tensor_distance
from resumecheck.runs.bench import Bench, Experiment, Run
from resumecheck.trajectory import Trajectory
from resumecheck.verdict import Divergence


@dataclasses.dataclass(frozen=True)
class Repetitions:
    """Makes the source run and runs that are resumed from it once more."""

    bench: Bench
    experiment: Experiment
    source: Run

    def donor(self, point: int) -> Run:
        """The source run once more, storing its live state at the resume point and its batches after it."""
        return self.bench.source(self.experiment, live_at=(point,), batches_after=point)

    def samples(self, point: int, differences: list[Difference], expected: Run, got: Trajectory) -> Samples | None:
        """The samples of both runs by content, where data differs and its indices do not tell how."""
        step = next((difference.step for difference in differences if difference.component in DATA), None)
        if step is None or indices_tell(step, expected.trajectory, got):
            return None
        theirs = self.bench.source(self.experiment, samples=True)
        ours = self.bench.resumed(
            self.experiment, self.source, point, stop=step, label="to see its samples", samples=True
        )
        due, here = read_samples(theirs.directory), read_samples(ours.directory)
        return Samples(due, here) if due is not None and here is not None else None

    def inside(self, point: int, effect: Difference, until: int) -> Place | None:
        """Where inside the step the runs part, by runs that trace every module."""
        step = effect.step
        if effect.rung not in ("loss", "gradients", "state-after-step") or step > until:
            return None
        theirs = self.bench.source(self.experiment, trace_at=(step,))
        ours = self.bench.resumed(
            self.experiment, self.source, point, stop=min(step, until), label="traced", trace_at=(step,)
        )
        place = first_place(theirs.directory / f"trace-{step}.json", ours.directory / f"trace-{step}.json")
        if effect.rung == "loss" and (place is None or place.direction == "backward"):
            return Place("loss", "the loss", "")
        return place

    def measured(self, point: int, root: Difference, donor: Run, until: int) -> Divergence:
        """The divergence with how far the first tensor is apart, by runs that store it."""
        divergence = divergence_of(root)
        if "#" not in str(root.expected) or not root.keys or not donor.complete:
            return with_float_distance(divergence)
        step = point if root.rung == "state-after-loading" else root.step
        gradient = root.rung == "gradients"
        if root.component in DATA or root.rung in ("sample-ids", "batch-content", "random-streams"):
            return divergence
        keys = root.keys[:1]
        wanted: dict[str, Any] = (
            {"gradients": {step: (root.name,)}} if gradient else {"tensors": {step: tuple(_storage_keys(root, keys))}}
        )
        theirs = self.bench.source(self.experiment, **wanted)
        stop = min(max(step, point + 1), until)
        ours = self.bench.resumed(self.experiment, self.source, point, stop=stop, label="to measure", **wanted)
        file = f"gradients-{step}.pt" if gradient else f"tensors-{step}.pt"
        pair = [run.directory / file for run in (theirs, ours)]
        if not all(path.exists() for path in pair):
            return divergence
        stored = [torch.load(path, weights_only=True) for path in pair]
        key = next((key for key in stored[0] if key in stored[1]), None)
        if key is None or not isinstance(stored[0][key], torch.Tensor):
            return divergence
        return with_tensor_distance(divergence, stored[0][key], stored[1][key])


def _storage_keys(root: Difference, keys: tuple[str, ...]) -> list[str]:
    """Keys under which the recorder stores leaves; a dtype difference may belong to any component."""
    components = (
        ("weights", "buffers", "loss-parameters", "optimizer-moments", "optimizer-step")
        if root.component == "dtype"
        else (root.component,)
    )
    return [f"{component}|{key}" for component in components for key in keys]
