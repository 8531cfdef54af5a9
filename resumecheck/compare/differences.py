"""The causal ladder: every difference between an expected and a resumed run, in the order in which causes act.

A difference is an *effect* where it is part of what "the same run" means: the loss, the learning rate used, the
weights, the persistent buffers, the optimizer's moments and step counts, the number of steps, the results of
evaluations. All others (a random stream, a batch, a counter) explain an effect; without one they are latent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from resumecheck.compare.tolerance import Tolerance
from resumecheck.state.capture import NON_PERSISTENT, OUTSIDE
from resumecheck.state.components import ORDER, RUNG_ORDER
from resumecheck.trajectory import Row, Trajectory

EFFECT_COMPONENTS = frozenset({"weights", "buffers", "loss-parameters", "optimizer-moments", "optimizer-step"})


@dataclasses.dataclass(frozen=True)
class Difference:
    """One component that differs on one rung at one step; `name` is the first leaf that does, `count` how many do."""

    step: int
    rung: str
    component: str
    quantity: str
    name: str
    expected: Any
    got: Any
    effect: bool
    count: int = 1
    keys: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, int, int]:
        """Causal order: step, rung, component."""
        return self.step, RUNG_ORDER[self.rung], ORDER[self.component]

    @property
    def places(self) -> set[str]:
        """What differs, whatever the step: used to leave out what no two runs agree on."""
        if self.keys:
            return {f"{self.component}|{key}" for key in self.keys}
        return {f"{self.rung}|{self.component}|{self.quantity}"}


def compare(
    expected: Trajectory, got: Trajectory, *, after: int, until: int, tolerance: Tolerance, steps: int = 3
) -> list[Difference]:
    """Differences between two runs from the state after step `after` up to step `until`, in causal order.

    Args:
        expected: the uninterrupted run.
        got: the run under test; its first row is compared with the expected state after `after`.
        after: the resume point, 0 for two runs from the start.
        until: the last step compared.
        tolerance: when numbers count as equal. State is compared by digest, so only under `bitwise`.
        steps: stop after this many steps that show an effect.
    """
    found: list[Difference] = []
    if tolerance.bitwise:
        start = got.rows[got.first_step]
        loaded = list(_state_differences(after + 1, "state-after-loading", expected.rows[after], start))
        identity = list(_identity(after + 1, expected.rows[after], start))
        if any(difference.name == OUTSIDE for difference in identity):
            # The optimizer holds other parameters than the model: what it holds has other names, and is not lost state.
            of_optimizer = ("loss-parameters", "optimizer-moments", "optimizer-step", "optimizer-hyperparameters")
            loaded = [difference for difference in loaded if difference.component not in of_optimizer]
        found += loaded + identity
    with_effect = 0
    for step in range(after + 1, until + 1):
        before, now = expected.rows.get(step), got.rows.get(step)
        if before is None or now is None:
            if before is not now:
                ends = (expected.last_step, got.last_step)
                found.append(Difference(step, "number-of-steps", "counters", "last step", "", *ends, effect=True))
            break
        here = list(_row_differences(step, before, now, tolerance))
        found += here
        with_effect += any(difference.effect for difference in here)
        if with_effect >= steps:
            break
    return sorted(found, key=lambda difference: difference.order)


def without(differences: list[Difference], places: set[str]) -> list[Difference]:
    """Differences without those that have no effect and lie in the given places only."""
    return [difference for difference in differences if difference.effect or not difference.places <= places]


def first_effect(differences: list[Difference]) -> Difference | None:
    """The first difference that is part of what "the same run" means."""
    return next((difference for difference in differences if difference.effect), None)


def _row_differences(step: int, expected: Row, got: Row, tolerance: Tolerance) -> Iterator[Difference]:
    if tolerance.bitwise:
        yield from _data(step, expected, got)
        for name, text in expected.streams.items():
            if got.streams.get(name) != text:
                yield Difference(step, "random-streams", name, "state", "", text, got.streams.get(name), effect=False)
    yield from _losses(step, expected, got, tolerance.equal)
    if tolerance.bitwise:
        yield from _leaves(step, "gradients", "weights", "gradient", expected.gradients, got.gradients)
    elif not tolerance.equal(expected.grad_norm, got.grad_norm):
        yield Difference(
            step, "gradients", "weights", "gradient norm", "", expected.grad_norm, got.grad_norm, effect=True
        )
    for index in range(max(len(expected.lr), len(got.lr))):
        pair = [row.lr[index] if index < len(row.lr) else None for row in (expected, got)]
        if not tolerance.equal(*pair):
            yield Difference(
                step, "learning-rate", "lr-scheduler", "learning rate", f"group {index}", *pair, effect=True
            )
            break
    if tolerance.bitwise:
        yield from _state_differences(step, "state-after-step", expected, got)
    yield from _evaluations(step, expected, got, tolerance.equal)
    yield from _logged(step, expected, got)


def _data(step: int, expected: Row, got: Row) -> Iterator[Difference]:
    ids = expected.ids, got.ids
    if ids[0] is not None and ids[1] is not None and ids[0] != ids[1]:
        yield Difference(step, "sample-ids", "data-order", "sample ids", "", _few(ids[0]), _few(ids[1]), effect=False)
    for index in range(max(len(expected.micro), len(got.micro))):
        pair = [row.micro[index].batch if index < len(row.micro) else None for row in (expected, got)]
        if pair[0] != pair[1]:
            name = f"micro-batch {index}"
            yield Difference(step, "batch-content", "data-content", "batch", name, *pair, effect=False)
            break


def _losses(
    step: int, expected: Row, got: Row, equal: Callable[[float | None, float | None], bool]
) -> Iterator[Difference]:
    for index in range(max(len(expected.micro), len(got.micro))):
        pair = [row.micro[index].loss if index < len(row.micro) else None for row in (expected, got)]
        if not equal(*pair):
            name = f"micro-batch {index}" if len(expected.micro) > 1 else ""
            yield Difference(step, "loss", "hidden-state", "loss", name, *pair, effect=True)
            return


def _state_differences(step: int, rung: str, expected: Row, got: Row) -> Iterator[Difference]:
    for component in sorted({*expected.state, *got.state}, key=lambda name: ORDER[name]):
        pair = expected.state.get(component, {}), got.state.get(component, {})
        effect = component in EFFECT_COMPONENTS
        if component == "buffers":
            # A buffer that no checkpoint holds may be a cache that each forward makes anew: by itself no effect.
            for kind, is_effect in (("buffer", True), (NON_PERSISTENT, False)):
                part = [{key: text for key, text in side.items() if key.startswith(f"{kind}|")} for side in pair]
                yield from _leaves(step, rung, component, "", part[0], part[1], effect=is_effect)
        else:
            yield from _leaves(step, rung, component, "", *pair, effect=effect)


def _leaves(
    step: int,
    rung: str,
    component: str,
    quantity: str,
    expected: dict[str, str],
    got: dict[str, str],
    *,
    effect: bool = False,
) -> Iterator[Difference]:
    """One difference for all leaves of a component; another for those whose data type alone tells them apart."""
    keys = [key for key in {**expected, **got} if expected.get(key) != got.get(key)]
    if not keys:
        return
    first = keys[0]
    kind, _, name = first.partition("|") if not quantity else (quantity, "", first)
    types = [_type(side.get(first)) for side in (expected, got)]
    if None not in types and types[0] != types[1] and effect:
        component = "dtype"
    yield Difference(
        step, rung, component, kind, name, expected.get(first), got.get(first), effect, len(keys), tuple(keys)
    )


def _type(text: str | None) -> str | None:
    """The data type in a tensor's digest, None for other values."""
    if text is None or "[" not in text or text.startswith("="):
        return None
    return text.partition("[")[0]


def _identity(step: int, expected: Row, got: Row) -> Iterator[Difference]:
    for name, fact in expected.identity.items():
        other = got.identity.get(name)
        if fact != other:
            component = "lr-scheduler" if "holds the optimizer" in name else "optimizer-hyperparameters"
            if name in ("tied", OUTSIDE):
                component = "weights"
            yield Difference(step, "identity", component, "identity", name, str(fact), str(other), effect=False)


def _evaluations(
    step: int, expected: Row, got: Row, equal: Callable[[float | None, float | None], bool]
) -> Iterator[Difference]:
    pair = [[event["metrics"] for event in row.events if event["kind"] == "evaluate"] for row in (expected, got)]
    if len(pair[0]) != len(pair[1]):
        counts = len(pair[0]), len(pair[1])
        yield Difference(step, "events", "counters", "number of evaluations", "", *counts, effect=True)
        return
    for before, now in zip(*pair, strict=True):
        for name in {**before, **now}:
            if not equal(before.get(name), now.get(name)):
                values = before.get(name), now.get(name)
                yield Difference(step, "events", "hidden-state", "evaluation", name, *values, effect=True)
                return


def _logged(step: int, expected: Row, got: Row) -> Iterator[Difference]:
    """The logged numbers that differ: they are no state, but people read them, and so may a callback that decides."""
    pair = [[event["logs"] for event in row.events if event["kind"] == "log"] for row in (expected, got)]
    if len(pair[0]) != len(pair[1]):
        yield Difference(step, "logs", "counters", "number of logs", "", *map(len, pair), effect=False)
        return
    for before, now in zip(*pair, strict=True):
        for name in {**before, **now}:  # each by itself: one may be a time, which no two runs agree on
            if before.get(name) != now.get(name):
                values = before.get(name), now.get(name)
                yield Difference(step, "logs", "counters", "logged", name, *values, effect=False, keys=(name,))


def _few(ids: list[Any]) -> str:
    return ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
