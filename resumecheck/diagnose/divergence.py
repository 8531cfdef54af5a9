"""The first divergence as facts for the verdict: values instead of digests, distances, and the steps around it."""

from __future__ import annotations

import dataclasses
from typing import Any

from resumecheck.compare.differences import Difference
from resumecheck.compare.tensors import distance
from resumecheck.compare.tolerance import ulp_distance
from resumecheck.diagnose.suspects import Suspect
from resumecheck.trajectory import Row, Trajectory
from resumecheck.verdict import Divergence, StepPair

#: How many steps to show before and after the divergence.
WINDOW = (1, 3)


def saving_divergence(difference: Difference) -> Divergence:
    """State that a save has changed is first used in the step after it."""
    after = difference.rung == "state-after-step"
    return dataclasses.replace(
        divergence_of(difference), component="saving", step=difference.step + 1 if after else difference.step
    )


def divergence_of(difference: Difference) -> Divergence:
    """A difference as the verdict shows it."""
    return Divergence(
        step=difference.step,
        rung=difference.rung,
        component=difference.component,
        quantity=difference.quantity,
        name=difference.name,
        expected=_value(difference.expected),
        got=_value(difference.got),
    )


def _value(value: Any) -> float | int | str | None:
    """A digest that carries its value (`=5`, `float32[]=4.0`) as that value."""
    if not isinstance(value, str):
        return value
    _, separator, text = value.partition("=")
    if not separator or "#" in value:
        return value
    try:
        return float(text) if "." in text or "e" in text or "n" in text else int(text)
    except ValueError:
        return text


def with_float_distance(divergence: Divergence) -> Divergence:
    """The divergence with the distance of its two numbers, where it has two."""
    expected, got = divergence.expected, divergence.got
    if isinstance(expected, float) and isinstance(got, float):
        return dataclasses.replace(divergence, max_abs=abs(expected - got), max_ulp=ulp_distance(expected, got))
    return divergence


def with_tensor_distance(divergence: Divergence, expected: Any, got: Any) -> Divergence:
    """The divergence with how far its two tensors are apart, and the element where they are so most."""
    apart = distance(expected, got)
    if apart is None:
        return divergence
    return dataclasses.replace(
        divergence,
        name=f"{divergence.name}[{', '.join(map(str, apart.where))}]" if apart.where else divergence.name,
        expected=apart.expected,
        got=apart.got,
        max_abs=apart.max_abs,
        max_ulp=apart.max_ulp,
    )


def with_distance(suspect: Suspect, divergence: Divergence | None) -> str:
    """The evidence in words; of a measured tensor its values instead of its digests."""
    if divergence is None or divergence.max_abs is None or suspect.difference is None or suspect.hidden:
        return suspect.detail
    if "#" not in suspect.detail:
        return suspect.detail
    others = f" (and {suspect.difference.count - 1} more tensors)" if suspect.difference.count > 1 else ""
    ulp = f", {divergence.max_ulp} ulp" if divergence.max_ulp is not None else ""
    quantity = "" if divergence.quantity in ("parameter", "buffer") else f" {divergence.quantity}"
    return (
        f"{divergence.name}{quantity}: expected {divergence.expected!r}, got {divergence.got!r} "
        f"(largest difference {divergence.max_abs:.3g}{ulp}){others}"
    )


def changed_arguments(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Training arguments that differ between two runs, in words; nothing where none does."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: expected {before.get(name)!r}, got {now.get(name)!r}" for name in changed[:5])


def steps_around(expected: Trajectory, got: Trajectory, step: int | None) -> tuple[StepPair, ...]:
    """The steps around the divergence, side by side."""
    if step is None:
        return ()
    pairs = []
    for number in range(step - WINDOW[0], step + WINDOW[1] + 1):
        before, now = expected.rows.get(number), got.rows.get(number)
        if (before is None or before.start) and (now is None or now.start):
            continue
        sides = _shown(before), _shown(now)
        pairs.append(StepPair(number, *sides, equal=sides[0] == sides[1]))
    return tuple(pairs)


def _shown(row: Row | None) -> dict[str, Any] | None:
    if row is None or row.start:
        return None
    return {
        "loss": row.loss,
        "grad_norm": row.grad_norm,
        "learning_rate": row.lr[0] if row.lr else None,
        "samples": row.ids[:8] if row.ids is not None else None,
    }
