"""The experiment: reference run, source run, resumed runs, and the verdict over all of them.

In flows a target, out flows a `Verdict`. `Workbench` keeps the preloaded servers and every run made so far, so that
several checks share them; `verify` is one check on a workbench of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from resumecheck.errors import ResumeDivergence, TargetError, UsageError
from resumecheck.evidence import Evidence, gather
from resumecheck.options import INTERRUPTS, parse_horizon
from resumecheck.reference_cache import ReferenceCache, uninterrupted
from resumecheck.runs.bench import Bench, Experiment, Run, require_complete
from resumecheck.runs.pool import Progress
from resumecheck.runs.target import Target, find_target
from resumecheck.trajectory import Trajectory
from resumecheck.verdict import Outcome, ResumePoint, Settings, Verdict

TargetLike = str | Callable[..., Any] | Target

#: A run goes on for the target's own length up to this many steps, else for `SHORT_RUN` steps.
LONGEST_DEFAULT, SHORT_RUN = 200, 20


class Workbench:
    """Checks that share preloaded servers and runs. A context manager; `close` ends every process.

    Args:
        keep: a new or empty directory in which the recorded runs stay; None for a temporary one.
        jobs: how many runs go on at a time; by default two, or one on a single core.
        progress: called with (name of the run, finished step, step at which it stops), from several threads.
    """

    def __init__(self, *, keep: Path | None = None, jobs: int | None = None, progress: Progress | None = None) -> None:
        self.cache: ReferenceCache | None = None  # May be set, to take reference runs from other sessions.
        self.bench = Bench(keep=keep, jobs=jobs, progress=progress)
        self._judged: tuple[Run, Run, Any] | None = None

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process and remove what is not to be kept."""
        self.bench.close()

    def plan(
        self, target: TargetLike, *, steps: int | None = None, at: Sequence[int] | str | None = None
    ) -> tuple[int, list[int]]:
        """The length of the run and its resume points; the target is built in a process of its own where it must be.

        Raises:
            UsageError: the target or a resume point cannot be used.
            TargetError: the target fails when it is built.
        """
        if steps is not None and at is not None and not isinstance(at, str):
            return steps, checked_points(at, steps)
        planned = require_complete(self.bench.plan(find_target(target)))
        own = planned.end.max_steps or SHORT_RUN
        length = min(steps, own) if steps is not None else own if own <= LONGEST_DEFAULT else SHORT_RUN
        if isinstance(at, str) or at is None:
            return length, spread_points(at, length, planned.end.steps_per_epoch)
        return length, checked_points(at, length)

    def verify(
        self,
        target: TargetLike,
        *,
        steps: int | None = None,
        at: Sequence[int] | str | None = None,
        horizon: str = "end",
        tolerance: str = "bitwise",
        interrupt: str = "stop",
        on_resume: Mapping[str, str] | None = None,
        twice: bool = False,
    ) -> Verdict:
        """Interrupt and resume the target at each resume point, and say whether it is still the same run.

        Args:
            target: `pkg.mod:build`, `path/file.py:build` or a callable; `build(output_dir)` returns a trainer.
            steps: stop the runs after this many optimizer steps; the target's own schedule is not changed.
            at: resume points, or `every`, `epoch`, `K-per-epoch`; by default three of different kinds.
            horizon: `end`, or `next` to go only to the next resume point where that is enough.
            tolerance: `bitwise`, `noise`, `ulp:N` or `close:RTOL,ATOL`.
            interrupt: `stop` takes the checkpoints from a run that goes on; `sigterm` and `sigkill` kill a run there.
            on_resume: training arguments that the resumed runs change.
            twice: also interrupt each resumed run half way to its end, and resume it again.

        Raises:
            UsageError: an option or the target cannot be used.
        """
        from resumecheck.compare.tolerance import parse_tolerance
        from resumecheck.diagnose.point import second_point

        found = find_target(target)
        parsed = parse_tolerance(tolerance)
        parse_horizon(horizon)
        if interrupt not in INTERRUPTS:
            raise UsageError(f"interrupt: {interrupt!r} is not known; give one of: {', '.join(INTERRUPTS)}")
        settings = Settings(horizon, interrupt, dict(on_resume or {}), twice)
        self.bench.used.clear()
        self._judged = None
        try:
            length, points = self.plan(found, steps=steps, at=at)
            changes = tuple(sorted((on_resume or {}).items()))
            again = tuple(second_point(point, length) for point in points) if twice else ()
            experiment = Experiment(
                found, length, tuple(points), changes, interrupt, keep_end=not parsed.bitwise, again=again
            )
            return self._experiment(experiment, parsed, settings)
        except TargetError as error:
            used = self.bench.steps_used()
            return Verdict(found.name, "error", tolerance, 0, used, False, error=str(error), settings=settings)

    def _experiment(self, experiment: Experiment, tolerance: Any, settings: Settings) -> Verdict:
        from resumecheck.diagnose.determinism import judge_source
        from resumecheck.diagnose.point import Judge

        bench = self.bench
        made = uninterrupted(bench, experiment, self.cache)
        reference, source = made.reference, made.source
        checked_points(experiment.points, last := reference.trajectory.last_step)
        judgement = judge_source(bench, experiment, reference, source, tolerance)
        judge = Judge(bench, experiment, reference, source, judgement, tolerance)
        self._judged = reference, source, judge
        points: list[ResumePoint] = []
        if judgement.repeats:
            plan = horizons(experiment.points, settings.horizon, last, _crossings(reference, source))
            points = list(bench.threads.map(lambda item: judge.judge(*item), plan))
            points = _escalated(points, lambda point: judge.judge(point, "end", last))
            if settings.twice:
                again = [point.step for point in points if point.verdict == "equivalent" and last - point.step > 1]
                points += bench.threads.map(judge.judge_again, again)
        outcome: Outcome = "equivalent"
        if not judgement.repeats:
            outcome = "nondeterministic"
        elif any(point.verdict != "equivalent" for point in points):
            outcome = "diverged"
        return Verdict(
            target=experiment.target.name,
            verdict=outcome,
            tolerance=tolerance.name,
            steps=last,
            steps_executed=bench.steps_used(),
            reference_repeats=judgement.exact,
            resume_points=tuple(points),
            findings=(judgement.finding,) if judgement.finding is not None and not judgement.repeats else (),
            notes=(
                *made.notes,
                *_notes(experiment, reference, source, points, tolerance.bitwise),
                *_log_notes(judge.logged if tolerance.bitwise else ()),
                *_noise_notes(judgement.spread),
            ),
            versions=reference.trajectory.facts.get("versions", {}),
            kept=str(bench.root) if bench.keep is not None else None,
            settings=settings,
        )

    def evidence(self) -> Evidence | None:
        """What the last check recorded, for a report; None where the target failed. Ask for it before `close`."""
        if self._judged is None:
            return None
        reference, source, judge = self._judged
        return gather(reference, source, judge.resumed, () if judge.judgement.saving else judge.noise)

    def reference_run(self, target: TargetLike, *, steps: int | None = None) -> Trajectory:
        """The recorded uninterrupted run.

        Raises:
            UsageError, TargetError: the target cannot be used, or fails.
        """
        found = find_target(target)
        length = steps if steps is not None else self.plan(found, at="1-per-epoch")[0]
        return require_complete(self.bench.reference(Experiment(found, length, ()))).trajectory

    def resumed_run(self, target: TargetLike, *, at: int, steps: int | None = None) -> Trajectory:
        """The recorded run of a fresh process that resumed from the checkpoint after step `at`.

        Raises:
            UsageError, TargetError: the target cannot be used, fails, or fails when resumed.
        """
        found = find_target(target)
        length, points = self.plan(found, steps=steps, at=[at])
        experiment = Experiment(found, length, tuple(points))
        source = require_complete(self.bench.source(experiment))
        return require_complete(self.bench.resumed(experiment, source, at, stop=length)).trajectory


def verify(
    target: TargetLike, *, keep: Path | None = None, progress: Progress | None = None, **options: Any
) -> Verdict:
    """One check on a workbench of its own; the options are those of `Workbench.verify`.

    Example:
        >>> verdict = resumecheck.verify("train.py:build", steps=12, at=[4, 9])  # doctest: +SKIP
        >>> verdict.equivalent  # doctest: +SKIP
        True
    """
    with Workbench(keep=keep, progress=progress) as workbench:
        return workbench.verify(target, **options)


#: What a test may ask to be equal -> where the ladder finds it.
QUANTITIES: dict[str, Callable[[Any], bool]] = {
    "weights": lambda difference: difference.component in ("weights", "dtype") and difference.rung.startswith("state"),
    "buffers": lambda difference: difference.component == "buffers",
    "optimizer-moments": lambda difference: difference.component == "optimizer-moments",
    "optimizer-step": lambda difference: difference.component == "optimizer-step",
    "learning-rate": lambda difference: difference.rung == "learning-rate",
    "loss": lambda difference: difference.rung == "loss",
    "gradients": lambda difference: difference.rung == "gradients",
    "batches": lambda difference: difference.rung in ("sample-ids", "batch-content"),
    "random-streams": lambda difference: difference.rung == "random-streams",
    "steps": lambda difference: difference.rung == "number-of-steps",
}


def assert_resume_equivalent(
    reference: Trajectory, resumed: Trajectory, quantities: Sequence[str] | None = None, tolerance: str = "bitwise"
) -> None:
    """Assert that a resumed run continues the reference.

    Args:
        reference: the uninterrupted run.
        resumed: the run that was resumed.
        quantities: names from `QUANTITIES`; by default everything that makes it the same run.
        tolerance: `bitwise`, `ulp:N` or `close:RTOL,ATOL`.

    Raises:
        ResumeDivergence: they differ; the text names the step and the quantity.
        UsageError: a quantity is not known.
    """
    from resumecheck.compare.differences import compare
    from resumecheck.compare.tolerance import parse_tolerance
    from resumecheck.diagnose.suspects import words

    unknown = [name for name in quantities or () if name not in QUANTITIES]
    if unknown:
        raise UsageError(f"quantity {unknown[0]!r} is not known; give some of: {', '.join(QUANTITIES)}")
    until = max(reference.last_step, resumed.last_step)
    differences = compare(
        reference, resumed, after=resumed.first_step, until=until, tolerance=parse_tolerance(tolerance), steps=until
    )
    for difference in differences:
        asked = any(QUANTITIES[name](difference) for name in quantities) if quantities else difference.effect
        if asked:
            raise ResumeDivergence(
                f"the run resumed after step {resumed.first_step} differs from the uninterrupted run at step "
                f"{difference.step}, {difference.rung} ({difference.component}): {words(difference)}"
            )


def checked_points(points: Sequence[int], length: int) -> list[int]:
    """Resume points in order.

    Raises:
        UsageError: there is none, or one is not inside the run.
    """
    ordered = sorted(set(points))
    if not ordered:
        raise UsageError("no resume point is given; give --at some steps, for example --at 3,7")
    for point in ordered:
        if not 1 <= point < length:
            raise UsageError(
                f"resume point {point} is not inside the run of {length} steps: a resume point lies between 1 and "
                f"{length - 1}, so that at least one step follows it"
            )
    return ordered


def spread_points(at: str | None, length: int, per_epoch: int | None) -> list[int]:
    """Resume points for `every`, `epoch`, `K-per-epoch` or None.

    Raises:
        UsageError: the word is not known, or there is no such point inside the run.
    """
    if at == "every":
        return checked_points(range(1, length), length)
    epoch = per_epoch or length
    if at is None:
        first = max(1, min(epoch, length) // 2)
        wanted = [first, epoch, epoch + max(1, epoch // 2)]
        return checked_points([point for point in wanted if 1 <= point < length] or [1], length)
    if at == "epoch":
        points = list(range(epoch, length, epoch))
        if not points:
            raise UsageError(
                f"--at epoch: no epoch ends inside the {length} steps (an epoch has {epoch} steps); give --steps more"
            )
        return points
    match = re.fullmatch(r"(\d+)-per-epoch", at)
    if match is None or int(match[1]) < 1:
        raise UsageError(f"--at {at}: expected steps such as 3,7 or one of: every, epoch, K-per-epoch")
    count = int(match[1])
    inside = {
        math.ceil(start + epoch * (part + 0.5) / count) for start in range(0, length, epoch) for part in range(count)
    }
    return checked_points([point for point in inside if 1 <= point < length] or [max(1, length // 2)], length)


def horizons(points: Sequence[int], horizon: str, last: int, crossings: Sequence[int]) -> list[tuple[int, str, int]]:
    """(resume point, horizon, last step) of each resumed run.

    Under `next`, the resumed runs together make about as many steps as one run. One goes to the end: the latest that
    still crosses every kind of event in `crossings` (the last epoch boundary, evaluation and save), as long as that
    costs at most a fifth of the run; else the latest that is affordable.
    """
    if horizon == "end":
        return [(point, "end", last) for point in points]
    affordable = [point for point in points if last - point <= last // 5] or [points[-1]]
    crossing = [point for point in points if crossings and point < min(crossings)]
    to_end = max([*affordable[:1], *crossing[-1:]])
    following = [*points[1:], last]
    return [
        (point, "end", last) if point == to_end or after == last else (point, "next", after)
        for point, after in zip(points, following, strict=True)
    ]


def _escalated(points: Sequence[ResumePoint], to_end: Callable[[int], ResumePoint]) -> list[ResumePoint]:
    """Go to the end where something still differs at the next resume point: only the rest of the run can tell.

    Of the points at which the same things differ, the earliest goes to the end; where that has an effect, all do.
    """
    by_difference: dict[tuple[str, ...], list[ResumePoint]] = {}
    for point in points:
        if point.horizon == "next" and point.verdict == "equivalent" and point.latent:
            same = tuple(sorted(f"{found.code}{found.evidence.get('paths', '')}" for found in point.latent))
            by_difference.setdefault(same, []).append(point)
    judged: dict[int, ResumePoint] = {}
    for first, *others in by_difference.values():
        judged[first.step] = to_end(first.step)
        if judged[first.step].verdict != "equivalent":
            judged |= {other.step: to_end(other.step) for other in others}
    return [judged.get(point.step, point) for point in points]


def _crossings(reference: Run, source: Run) -> list[int]:
    """The last step of each kind at which something other than a step happens: epoch boundary, evaluation, save."""
    last = reference.trajectory.last_step
    per_epoch = reference.end.steps_per_epoch
    found = [last // per_epoch * per_epoch - (per_epoch if last % per_epoch == 0 else 0)] if per_epoch else []
    for run, kind in ((reference, "evaluate"), (source, "save")):
        steps = [row.step for row in run.trajectory.rows.values() if any(event["kind"] == kind for event in row.events)]
        found += [max((step for step in steps if step < last), default=0)]
    return [step for step in found if step > 0]


def _log_notes(logged: Collection[str]) -> tuple[str, ...]:
    """What is logged is no state, but people compare it."""
    if not logged:
        return ()
    return (
        f"logged in resumed runs with other values, while the runs are the same: {', '.join(sorted(logged))} "
        "(the mean is taken over the steps of one process only)",
    )


def _noise_notes(uninterrupted: Any) -> tuple[str, ...]:
    """What a verdict by noise rests on, and what it could have missed."""
    if uninterrupted is None:
        return ()
    from resumecheck.compare.noise import ERROR_RATE

    spread = uninterrupted.spread
    return (
        f"judged by the spread of {spread.runs} uninterrupted runs; an unchanged run would be refused in at most "
        f"{ERROR_RATE:.1%} of checks if its numbers are near to normal",
        f"a deviation of the loss by up to {spread.reach():.2g} of its value at any one step could have been missed",
    )


def _notes(
    experiment: Experiment, reference: Run, source: Run, points: Sequence[ResumePoint], bitwise: bool
) -> tuple[str, ...]:
    notes = list(dict.fromkeys((*reference.end.overridden, *source.end.overridden)))
    own = reference.end.max_steps
    if own is not None and own > reference.trajectory.last_step:
        notes.append(f"steps {reference.trajectory.last_step + 1} to {own} of the target's own run were not checked")
    if experiment.on_resume:
        notes.append("changed on resume: " + ", ".join(f"{name}={value}" for name, value in experiment.on_resume))
    to_next = [str(point.step) for point in points if point.horizon == "next"]
    if to_next:
        notes.append(f"compared up to the next resume point only: {', '.join(to_next)}")
    if not bitwise:
        notes.append(
            "within a tolerance: losses, gradient norms, learning rates and evaluations of every step, and the "
            "weights, buffers and optimizer moments at the end; random streams and batches are not compared"
        )
    return tuple(notes)
