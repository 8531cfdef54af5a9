"""`diff(a, b)`: where two recorded runs, or two checkpoints, first part. Open `diff` first.

Recorded runs are compared rung by rung in causal order (`compare/differences.py`), checkpoints value by value in the
order of components. Both give `Divergence`s: step, rung, component, name, both values, and how far they are apart.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

import torch

from resumecheck.checkpoints.reading.files import Unreadable
from resumecheck.checkpoints.reading.torch_file import read_torch_file
from resumecheck.checkpoints.values import Value, Values, read_values
from resumecheck.compare.differences import Difference, compare, first_effect
from resumecheck.compare.tensors import distance, within
from resumecheck.compare.tolerance import Tolerance, parse_tolerance
from resumecheck.diagnose.divergence import divergence_of, steps_around, with_float_distance, with_tensor_distance
from resumecheck.errors import UsageError
from resumecheck.state.components import ORDER
from resumecheck.state.digest import digest
from resumecheck.trajectory import Trajectory, read_trajectory, senseless_step
from resumecheck.verdict import Divergence, StepPair, plain_json

SCHEMA_VERSION = 1
LISTED = 1_000
_STREAMS = ("rng-python", "rng-numpy", "rng-torch", "rng-cuda")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What the comparison of two records showed.

    Attributes:
        kind: `trajectories` or `checkpoints`.
        expected, got: the two paths as given.
        tolerance: as given.
        equal: whether nothing differs that training depends on.
        compared: how many steps, or how many values, were compared.
        first_divergence: the first difference in causal order, None where they are equal.
        differences: of trajectories, one a component and rung, up to the third step with an effect; of checkpoints
            one a value. At most 1000.
        without_effect: what differs and is no part of the training state: logs, paths, times, arguments.
        window: of trajectories, the steps around the first difference.
        notes: what was not compared.
    """

    kind: Literal["trajectories", "checkpoints"]
    expected: str
    got: str
    tolerance: str
    equal: bool
    compared: int
    first_divergence: Divergence | None
    differences: tuple[Divergence, ...] = ()
    without_effect: tuple[Divergence, ...] = ()
    window: tuple[StepPair, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """0 where they are equal, else 1."""
        return 0 if self.equal else 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, in the shape of the published schema."""
        return {"schema": SCHEMA_VERSION, **plain_json(dataclasses.asdict(self))}


def diff(expected: str | os.PathLike[str], got: str | os.PathLike[str], *, tolerance: str = "bitwise") -> Comparison:
    """Compare two recorded runs, or two checkpoints.

    Args:
        expected: a directory that `verify --keep` left of a run, or a checkpoint (a directory, or one file of one).
        got: another of the same kind.
        tolerance: `bitwise`, `ulp:N` or `close:RTOL,ATOL`.

    Raises:
        UsageError: one of them is neither, or they are not of the same kind.

    Example:
        >>> comparison = resumecheck.diff("kept/001-reference", "kept/003-resumed-from-4")  # doctest: +SKIP
        >>> comparison.first_divergence.component  # doctest: +SKIP
        'data-content'
    """
    parsed = parse_tolerance(tolerance)
    if parsed.noise:
        raise UsageError("--tolerance noise needs the runs of a check: use resumecheck verify, or bitwise here")
    paths = Path(expected), Path(got)
    kinds = [_kind(path) for path in paths]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"{paths[0]} is a {kinds[0]}, {paths[1]} a {kinds[1]}: give two recorded runs or two checkpoints"
        )
    names = str(expected), str(got)
    if kinds[0] == "recorded run":
        runs = [_trajectory(path) for path in paths]
        return _trajectories(names, runs[0], runs[1], parsed)
    return _checkpoints(names, read_values(paths[0]), read_values(paths[1]), parsed)


def _kind(path: Path) -> str:
    try:
        path.stat()
        if path.is_dir():
            if (path / "steps.jsonl").is_file() and (path / "run.json").is_file():
                return "recorded run"
            runs = sorted(child.name for child in path.iterdir() if (child / "steps.jsonl").is_file())
            if runs:
                raise UsageError(f"{path} holds several recorded runs; give one of them: {', '.join(runs[:6])}")
            from resumecheck.checkpoints.doctor import doctor

            diagnosis = doctor(path)
            if diagnosis.kind == "output directory":
                inside = ", ".join(Path(each.path).name for each in diagnosis.checkpoints[-6:])
                raise UsageError(f"{path} is an output directory; give one of its checkpoints: {inside}")
            if diagnosis.kind == "unknown":
                raise UsageError(
                    f"{path} is neither a recorded run (verify --keep) nor a checkpoint that is known here"
                )
            return "checkpoint"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{str(path)!r} cannot be looked at ({reason}); give a recorded run or a checkpoint"
        ) from error
    if path.is_file() and path.suffix in (".ckpt", ".safetensors", ".pt", ".pth", ".bin"):
        return "checkpoint"
    raise UsageError(f"{path} is neither a directory nor a file of a checkpoint (.safetensors, .pt, .pth, .bin, .ckpt)")


# --- recorded runs ----------------------------------------------------------------------------------------------------


def _trajectory(path: Path) -> Trajectory:
    try:
        found = read_trajectory(path)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as a recorded run ({str(error)[:200]})") from error
    odd = senseless_step(found)
    if odd is not None:
        raise UsageError(f"{path} cannot be read as a recorded run (the row of step {odd!r:.20} makes no sense)")
    return found


def _trajectories(names: tuple[str, str], expected: Trajectory, got: Trajectory, tolerance: Tolerance) -> Comparison:
    after = max(expected.first_step, got.first_step)
    last = max(expected.last_step, got.last_step)
    if after not in expected.rows or after not in got.rows:
        raise UsageError(
            f"the runs have no step in common: {names[0]} has the steps {expected.first_step} to {expected.last_step}, "
            f"{names[1]} the steps {got.first_step} to {got.last_step}"
        )
    later = {step: row for step, row in got.rows.items() if step >= after}
    got = dataclasses.replace(got, rows=later, first_step=after)
    found = compare(expected, got, after=after, until=last, tolerance=tolerance)
    effect = first_effect(found)
    shown = [_measured(difference, expected, got) for difference in found[:LISTED]]
    notes = []
    if after:
        notes.append(f"compared from step {after + 1} on, since one of the runs starts after step {after}")
    if not tolerance.bitwise:
        notes.append(
            "within a tolerance: losses, gradient norms, learning rates and evaluations; state is not compared"
        )
    first = shown[0] if effect is not None else None
    return Comparison(
        kind="trajectories",
        expected=names[0],
        got=names[1],
        tolerance=tolerance.name,
        equal=effect is None,
        compared=max(0, min(expected.last_step, got.last_step) - after),
        first_divergence=first,
        differences=tuple(shown) if effect is not None else (),
        without_effect=() if effect is not None else tuple(shown),
        window=steps_around(expected, got, first.step if first else None),
        notes=tuple(notes),
    )


def _measured(difference: Difference, expected: Trajectory, got: Trajectory) -> Divergence:
    """With the distance of two numbers, or of two tensors where both runs have kept them."""
    divergence = divergence_of(difference)
    step = difference.step - (difference.rung == "state-after-loading")
    key = (
        difference.name
        if difference.rung == "gradients"
        else f"{difference.component}|{next(iter(difference.keys), '')}"
    )
    file = f"gradients-{step}.pt" if difference.rung == "gradients" else f"tensors-{step}.pt"
    pair = [_kept(run.directory / file).get(key) for run in (expected, got)]
    if all(isinstance(tensor, torch.Tensor) for tensor in pair):
        return with_tensor_distance(divergence, pair[0], pair[1])
    return with_float_distance(divergence)


def _kept(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        read_torch_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (Unreadable, OSError, RuntimeError, ValueError):
        return {}
    except Exception:  # pickle.UnpicklingError, and what else a foreign file may cause: then there is no distance
        return {}
    return found if isinstance(found, dict) else {}


# --- checkpoints ------------------------------------------------------------------------------------------------------


def _checkpoints(names: tuple[str, str], expected: Values, got: Values, tolerance: Tolerance) -> Comparison:
    notes = [f"{name}: {note}" for name, side in zip(names, (expected, got), strict=True) for note in side.notes]
    if expected.step != got.step:
        notes.append(f"the checkpoints are of different steps: {expected.step} and {got.step}")
    if not tolerance.bitwise:
        notes.append("within a tolerance, random streams are not compared")
    step = expected.step or 0
    differences: list[Divergence] = []
    without: list[Divergence] = []
    more = 0
    keys = sorted({**expected.values, **got.values}, key=lambda key: ORDER[key[0]])
    for key in keys:
        if not tolerance.bitwise and key[0] in _STREAMS:
            continue
        sides = expected.values.get(key), got.values.get(key)
        found = _value_difference(step, key, sides, tolerance)
        if found is None:
            continue
        kept = differences if any(side is not None and side.effect for side in sides) else without
        if len(kept) < LISTED:
            kept.append(found)
        else:
            more += 1
    if more:
        notes.append(f"{more} more values differ")
    differences.sort(key=lambda divergence: ORDER[divergence.component])
    return Comparison(
        kind="checkpoints",
        expected=names[0],
        got=names[1],
        tolerance=tolerance.name,
        equal=not differences,
        compared=len(keys),
        first_divergence=differences[0] if differences else None,
        differences=tuple(differences),
        without_effect=tuple(without),
        notes=tuple(notes),
    )


def _value_difference(
    step: int, key: tuple[str, str, str], sides: tuple[Value | None, Value | None], tolerance: Tolerance
) -> Divergence | None:
    component, quantity, name = key
    values = [side.load() if side is not None else None for side in sides]
    texts = [digest(value) if side is not None else None for side, value in zip(sides, values, strict=True)]
    if texts[0] == texts[1]:
        return None
    divergence = divergence_of(Difference(step, "state-after-loading", component, quantity, name, *texts, effect=True))
    if None in texts:
        there = ["missing" if text is None else text for text in texts]
        return dataclasses.replace(divergence, expected=there[0], got=there[1])
    before, now = values
    if isinstance(before, torch.Tensor) and isinstance(now, torch.Tensor):
        if before.shape == now.shape and before.dtype != now.dtype:
            return dataclasses.replace(divergence, component="dtype")
        pair = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in (before, now)]
        apart = distance(pair[0], pair[1])
        if apart is not None and not tolerance.bitwise and within(pair[0], pair[1], apart, tolerance):
            return None
        return with_tensor_distance(divergence, pair[0], pair[1])
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and any(isinstance(value, float) for value in values):
        pair = [float(value) for value in values if value is not None]
        if not tolerance.bitwise and tolerance.equal(pair[0], pair[1]):
            return None
        return with_float_distance(dataclasses.replace(divergence, expected=pair[0], got=pair[1]))
    return divergence
