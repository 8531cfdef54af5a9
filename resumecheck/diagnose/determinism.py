"""Is the uninterrupted run the same run twice, and does saving disturb it? Judged before any resume is."""

from __future__ import annotations

import dataclasses

from resumecheck.compare.differences import Difference, compare, first_effect
from resumecheck.compare.tolerance import Tolerance, parse_tolerance
from resumecheck.diagnose.chance import likely_source
from resumecheck.diagnose.findings import finding
from resumecheck.diagnose.spread import Uninterrupted, measure_spread, outside_spread
from resumecheck.diagnose.suspects import words
from resumecheck.runs.bench import SOURCE_SEED, Bench, Experiment, Run, require_complete
from resumecheck.verdict import Finding

BITWISE = parse_tolerance("bitwise")


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What reference and source run show together.

    Attributes:
        repeats: whether the uninterrupted run repeats itself within the tolerance, so that a resume can be judged.
        exact: whether it repeats itself bit for bit.
        saving: whether saving changes the run.
        difference: the first difference in causal order that comes with an effect, None where there is none.
        finding: the finding about it.
        spread: under `noise`, how far uninterrupted runs lie apart.
    """

    repeats: bool = True
    saving: bool = False
    exact: bool = True
    difference: Difference | None = None
    finding: Finding | None = None
    spread: Uninterrupted | None = None


def judge_source(bench: Bench, experiment: Experiment, reference: Run, source: Run, tolerance: Tolerance) -> Judgement:
    """Compare the source run with the reference; where they part, find out by repeating which one is at fault."""
    if tolerance.noise:
        return _judge_by_spread(bench, experiment, reference, source)
    differences = _compare(reference, source, tolerance)
    if first_effect(differences) is None:
        exact = tolerance.bitwise or first_effect(_compare(reference, source, BITWISE)) is None
        return Judgement(exact=exact)
    again = require_complete(bench.reference(experiment, seed=SOURCE_SEED, repeat=1))
    against_reference = _compare(reference, again, tolerance)
    if first_effect(against_reference) is not None:
        third = require_complete(bench.reference(experiment, repeat=2))
        by_hash = first_effect(_compare(reference, third, tolerance)) is None
        if by_hash:
            cause = "under another hash seed (PYTHONHASHSEED) it is another run"
            return _nondeterministic(against_reference, cause, "an order that is taken from a set or a hash")
        between = _compare(reference, third, tolerance)
        source_of_chance = likely_source(bench, experiment, reference, third, _root(between))
        return _nondeterministic(between, "two uninterrupted runs with the same arguments differ", source_of_chance)
    twin = require_complete(bench.source(experiment, repeat=1))
    if first_effect(_compare(source, twin, tolerance)) is not None:
        between = _compare(source, twin, tolerance)
        source_of_chance = likely_source(bench, experiment, source, twin, _root(between))
        return _nondeterministic(between, "two runs that save at the same steps differ", source_of_chance)
    root = _root(differences)
    detail = f"from step {root.step} on the run that saves differs from the run that does not: {words(root)}"
    found = finding("saving", "confirmed", detail, rung=root.rung)
    return Judgement(saving=True, difference=root, finding=found)


def _judge_by_spread(bench: Bench, experiment: Experiment, reference: Run, source: Run) -> Judgement:
    """Under `noise` the run need not repeat itself; saving is at fault where the source run is outside the spread."""
    spread = measure_spread(bench, experiment, reference)
    exact = first_effect(_compare(reference, source, BITWISE)) is None
    outside = outside_spread(spread, source, after=0, expected_last=reference.trajectory.last_step)
    if not outside:
        return Judgement(exact=exact, spread=spread)
    detail = f"the run that saves is no draw from the spread of those that do not: {words(outside[0])}"
    found = finding("saving", "suspected", detail, rung=outside[0].rung)
    return Judgement(saving=True, exact=exact, difference=outside[0], finding=found, spread=spread)


def _compare(reference: Run, other: Run, tolerance: Tolerance) -> list[Difference]:
    until = max(reference.trajectory.last_step, other.trajectory.last_step)
    return compare(reference.trajectory, other.trajectory, after=0, until=until, tolerance=tolerance)


def _root(differences: list[Difference]) -> Difference:
    """The first difference at or before the first effect; logs and counters explain nothing."""
    effect = first_effect(differences)
    assert effect is not None
    causes = [
        d
        for d in differences
        if d.order <= effect.order and d.rung != "logs" and d.component not in ("counters", "callbacks")
    ]
    return causes[0] if causes else effect


def _nondeterministic(differences: list[Difference], cause: str, source_of_chance: str) -> Judgement:
    root = _root(differences)
    detail = f"{cause}; first at step {root.step}, {root.rung}: {words(root)}; likely source: {source_of_chance}"
    found = finding("nondeterminism", "confirmed", detail, rung=root.rung, source=source_of_chance)
    return Judgement(repeats=False, exact=False, difference=root, finding=found)
