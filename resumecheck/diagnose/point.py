"""Judges one resume point: compares the resumed run, finds suspects, confirms them, and tells the first divergence."""

from __future__ import annotations

import dataclasses
from functools import cached_property

from resumecheck.compare.differences import EFFECT_COMPONENTS, Difference, compare, first_effect, without
from resumecheck.compare.tensors import compare_ends
from resumecheck.compare.tolerance import Tolerance
from resumecheck.diagnose.absent import absent_files
from resumecheck.diagnose.confirm import Blame, Left, confirm
from resumecheck.diagnose.data import DATA
from resumecheck.diagnose.determinism import BITWISE, Judgement
from resumecheck.diagnose.divergence import (
    changed_arguments,
    saving_divergence,
    steps_around,
    with_distance,
)
from resumecheck.diagnose.findings import finding
from resumecheck.diagnose.repetitions import Repetitions
from resumecheck.diagnose.spread import outside_spread
from resumecheck.diagnose.suspects import (
    Hidden,
    Suspect,
    find_hidden,
    find_suspects,
    first_shown,
    hidden_suspect,
    lost_shadows,
    unexplained,
    words,
)
from resumecheck.runs.bench import Bench, Experiment, Run
from resumecheck.runs.spec import Transplant
from resumecheck.trajectory import Trajectory
from resumecheck.verdict import Divergence, Finding, ResumePoint


@dataclasses.dataclass(frozen=True)
class Judge:
    """What all resume points of a check share.

    `logged` gathers what runs that are the same log otherwise; `resumed` the runs that were judged: (resume point,
    number of resumes) -> the run that wrote the checkpoint, and the run that loaded it.
    """

    bench: Bench
    experiment: Experiment
    reference: Run
    source: Run
    judgement: Judgement
    tolerance: Tolerance
    logged: set[str] = dataclasses.field(default_factory=set)
    resumed: dict[tuple[int, int], tuple[Run, Run]] = dataclasses.field(default_factory=dict)

    @property
    def last_step(self) -> int:
        """Where the uninterrupted run ends."""
        return self.reference.trajectory.last_step

    @property
    def repeat(self) -> Repetitions:
        """Runs that are made once more where one did not record enough."""
        return Repetitions(self.bench, self.experiment, self.source)

    def judge(self, point: int, horizon: str, until: int) -> ResumePoint:
        """Resume from `point` and compare up to step `until`."""
        stop = until if until < self.last_step else self.experiment.steps
        resumed = self.bench.resumed(self.experiment, self.source, point, stop=stop)
        self.resumed[point, 2 if self.source.spec.kind == "resumed" else 1] = self.source, resumed
        if not resumed.complete:
            return self._failure(point, horizon, resumed)
        if not resumed.end.steps:
            return self._no_step(point, horizon, resumed)
        expected, differences = self._differences(point, resumed, until)
        effect = first_effect(differences)
        latent = self._latent(differences, point, resumed) if effect is None else ()
        if effect is None:
            self.logged.update(difference.name for difference in differences if difference.rung == "logs")
        if horizon == "next" and effect is None:
            latent += self._still_hidden(point, until, resumed)
        own = self._diagnose(point, resumed, expected, differences, effect, until) if effect is not None else None
        return self._with_saving(
            ResumePoint(
                step=point,
                horizon=horizon,
                verdict="equivalent" if effect is None else "diverged",
                first_divergence=own[0] if own else None,
                findings=own[1] if own else (),
                latent=latent,
                window=steps_around(expected.trajectory, resumed.trajectory, own[0].step if own else None),
                compared=min(until, resumed.trajectory.last_step) - point,
            )
        )

    def judge_again(self, point: int) -> ResumePoint:
        """Interrupt the run that was resumed from `point` half way to its end, and resume it again."""
        second = second_point(point, self.last_step)
        first = self.bench.resumed(
            self.experiment,
            self.source,
            point,
            stop=self.experiment.steps,
            label="and interrupted again",
            save_at=(second,),
            census_at=(second,),
        )
        if not first.complete:
            return dataclasses.replace(self._failure(point, "end", first), resumes=2)
        judged = dataclasses.replace(self, source=first).judge(second, "end", self.last_step)
        return dataclasses.replace(judged, resumes=2)

    def _differences(self, point: int, resumed: Run, until: int) -> tuple[Run, list[Difference]]:
        """Against the reference; where saving has changed the source run, against the one that it follows."""
        differences = self._against(self.reference, point, resumed, until)
        if self.judgement.saving and first_effect(differences) is not None:
            return self.source, self._against(self.source, point, resumed, until)
        return self.reference, without(differences, self.noise)

    def _against(self, expected: Run, point: int, resumed: Run, until: int, *, steps: int = 3) -> list[Difference]:
        """Everything in which a resumed run differs from an expected one."""
        got = resumed.trajectory
        limit = until if until < self.last_step else max(until, got.last_step)
        pair = expected.trajectory, got
        if self.judgement.spread is not None:
            last = expected.trajectory.last_step
            differences = outside_spread(self.judgement.spread, resumed, after=point, expected_last=last)
            return self._explaining(point, got) + differences
        differences = compare(*pair, after=point, until=limit, tolerance=self.tolerance, steps=steps)
        if self.tolerance.bitwise:
            return differences + self._shadows(expected, point, resumed)
        if got.last_step == expected.trajectory.last_step:
            differences += self._ends(expected, resumed)
        return self._explaining(point, got) + differences

    def _explaining(self, point: int, got: Trajectory) -> list[Difference]:
        """Under a tolerance: what the resumed run starts from, bit for bit against the run that made the checkpoint."""
        found = compare(
            self.source.trajectory, got, after=point, until=point + 1, tolerance=BITWISE, steps=self.last_step
        )
        early = ("state-after-loading", "identity", "sample-ids", "batch-content", "random-streams")
        return [dataclasses.replace(difference, effect=False) for difference in found if difference.rung in early]

    def _shadows(self, expected: Run, point: int, resumed: Run) -> list[Difference]:
        """Shadow copies of the weights (an average, a teacher) that training goes on changing and that differ."""
        last = resumed.trajectory.last_step
        moment = "end" if last == expected.trajectory.last_step else last
        lost = lost_shadows(self.reference.directory, self.source.directory, resumed.directory, moment)
        return [
            Difference(point + 1, "state-after-step", component, "shadow of the weights", path, *values, effect=True)
            for path, component, *values in lost
        ]

    @cached_property
    def noise(self) -> set[str]:
        """Places in which reference and source run differ without any effect: a time, a name, a counter of saves."""
        pair = self.reference.trajectory, self.source.trajectory
        found = compare(*pair, after=0, until=self.last_step, tolerance=self.tolerance, steps=self.last_step)
        return {place for difference in found if not difference.effect for place in difference.places}

    def _ends(self, expected: Run, resumed: Run) -> list[Difference]:
        """What differs beyond the tolerance in the tensors that the runs end with."""
        pair = [run.directory / "end.pt" for run in (expected, resumed)]
        step = resumed.trajectory.last_step
        found: list[Difference] = []
        for key, apart in compare_ends(*pair, EFFECT_COMPONENTS, self.tolerance):
            component, quantity, name = key.split("|", 2)
            values = (apart.expected, apart.got) if apart is not None else ("a tensor", "none of this shape")
            found.append(Difference(step, "state-after-step", component, quantity, name, *values, effect=True))
        return found

    def _with_saving(self, point: ResumePoint) -> ResumePoint:
        """Where saving changes the run, no resume point is the uninterrupted run, whatever else is lost."""
        difference, saving = self.judgement.difference, self.judgement.finding
        if not self.judgement.saving or difference is None or saving is None:
            return point
        return dataclasses.replace(
            point,
            verdict="diverged",
            first_divergence=saving_divergence(difference),
            # What the save itself has disturbed is its consequence, not another loss.
            findings=(saving, *(found for found in point.findings if found.component != difference.component)),
            window=steps_around(self.reference.trajectory, self.source.trajectory, difference.step),
        )

    def _failure(self, point: int, horizon: str, resumed: Run) -> ResumePoint:
        end = resumed.end
        where = f" at {end.where}" if end.where else ""
        detail = f"after {end.steps} steps of the resumed run: {end.error}{where}"
        divergence = Divergence(
            step=point + end.steps + 1,
            rung="loading" if end.steps == 0 else "number-of-steps",
            component="resume-failure",
            quantity="exception",
            name=end.where,
            expected=None,
            got=end.error,
        )
        failure = finding("resume-failure", "confirmed", detail, exception=end.error, where=end.where)
        return self._with_saving(ResumePoint(point, horizon, "diverged", divergence, (failure,)))

    def _no_step(self, point: int, horizon: str, resumed: Run) -> ResumePoint:
        """The resumed run ended by itself before its first step: there is nothing to compare but the arguments."""
        lengths = self.source.end.max_steps, resumed.end.max_steps
        detail = f"the resumed run ends without a step, expected steps {point + 1} to {self.last_step}"
        if lengths[0] != lengths[1]:
            detail += f"; training is {lengths[1]} steps long, expected {lengths[0]}"
        changed = changed_arguments(self.source.facts.get("arguments", {}), resumed.facts.get("arguments", {}))
        found = finding(
            "arguments" if changed else "counters", "suspected", f"{changed}; {detail}" if changed else detail
        )
        ends = self.last_step, max(point, lengths[1] or 0)
        divergence = Divergence(point + 1, "number-of-steps", found.component, "last step", "", *ends)
        return self._with_saving(ResumePoint(point, horizon, "diverged", divergence, (found,)))

    # --- blame ---------------------------------------------------------------------------------------------------

    def _diagnose(
        self, point: int, resumed: Run, expected: Run, differences: list[Difference], effect: Difference, until: int
    ) -> tuple[Divergence, tuple[Finding, ...]]:
        got = resumed.trajectory
        hidden = self._hidden(point, resumed)
        samples = self.repeat.samples(point, differences, expected, got)
        suspects = find_suspects(differences, hidden, expected.trajectory, got, point, samples)
        donor = self.repeat.donor(point)
        restarted = got.first_step != point
        blames = (
            confirm(suspects, lambda chosen: self._trial(point, resumed, expected, donor, chosen, until))
            if suspects and not restarted and donor.complete
            else [Blame(suspect, "suspected") for suspect in suspects if not suspect.logged]
        )
        if restarted:
            counters = f"the resumed run starts after step {got.first_step}, expected after step {point}"
            blames.insert(0, Blame(Suspect("counters", counters), "suspected"))
        shown = first_shown(differences, effect)
        root = blames[0].suspect.difference if blames and blames[0].suspect.difference is not None else shown
        divergence = self.repeat.measured(point, root, donor, until)
        if restarted:
            divergence = Divergence(
                point + 1, "state-after-loading", "counters", "counter", "global_step", point, got.first_step
            )
        elif blames:
            divergence = dataclasses.replace(divergence, component=blames[0].suspect.component)
        inside = self.repeat.inside(point, effect, until) if _unexplained(blames) else None
        findings = [
            finding(
                blame.suspect.component,
                blame.status,
                with_distance(blame.suspect, divergence if index == 0 else None)
                + (f"; {inside.words}" if inside is not None and index == 0 else ""),
                first_step=blame.suspect.difference.step if blame.suspect.difference else effect.step,
                paths=[place.path for place in blame.suspect.hidden],
            )
            for index, blame in enumerate(blames)
        ]
        absent = self.source.trajectory.facts.get("absent_files", {}).get(str(point), {})
        findings += absent_files(absent, point, [(blame.suspect.component, blame.status) for blame in blames])
        if not findings:
            detail = unexplained(effect, inside.words if inside is not None else "")
            findings.append(finding("hidden-state", "suspected", detail))
        return divergence, tuple(findings)

    def _hidden(self, point: int, resumed: Run) -> list[Hidden]:
        return find_hidden(self.reference.directory, self.source.directory, resumed.directory, point)

    def _trial(
        self, point: int, resumed: Run, expected: Run, donor: Run, chosen: list[Suspect], until: int
    ) -> Left | None:
        """Repeat the resumed run with the chosen states put right; None where it could not be tried."""
        components = {suspect.component for suspect in chosen if not suspect.hidden and not suspect.logged}
        if "dtype" in components:
            components |= {"weights", "optimizer-moments", "optimizer-step", "loss-parameters", "buffers"}
        transplant = Transplant(
            components=frozenset(components - DATA),
            hidden=tuple(unit for suspect in chosen for unit in suspect.units),
            donor=str(donor.directory),
            batches=bool(components & DATA),
            logs=any(suspect.logged for suspect in chosen),
        )
        stop = until if until < self.last_step else self.experiment.steps
        label = "with " + " and ".join(suspect.component for suspect in chosen[:3])
        run = self.bench.resumed(self.experiment, self.source, point, stop=stop, label=label, transplant=transplant)
        if not run.complete or not run.end.steps:
            return None
        left = self._against(expected, point, run, until, steps=1)
        if first_effect(left) is None:
            return Left(ended=True)
        return Left(
            ended=False,
            suspects=tuple(find_suspects(left, [], expected.trajectory, run.trajectory, point)),
            idle=_by_value(chosen) and not run.trajectory.facts.get("not_transplanted") and _same_steps(resumed, run),
        )

    def _still_hidden(self, point: int, until: int, resumed: Run) -> tuple[Finding, ...]:
        """Hidden state that still differs at the next resume point: it may act later."""
        directories = self.reference.directory, self.source.directory, resumed.directory
        hidden = tuple(place for place in find_hidden(*directories, until, "end") if not place.library)
        if not hidden:
            return ()
        detail = f"{hidden_suspect(hidden).detail}; no effect on any step up to {until}"
        return (finding("hidden-state", "suspected", detail, paths=sorted(place.path for place in hidden)),)

    def _latent(self, differences: list[Difference], point: int, resumed: Run) -> tuple[Finding, ...]:
        """What came back different and had no effect as far as the runs were compared."""
        seen: dict[str, Difference] = {}
        later = {difference.component for difference in differences if difference.rung == "state-after-step"}
        # Gradients that a loop zeroes between forward and backward are no state.
        nothing = {"counters"} if "gradient-accumulation" in later else {"counters", "gradient-accumulation"}
        for difference in differences:
            if (
                difference.rung in ("state-after-loading", "identity", "random-streams")
                and difference.component not in nothing
            ):
                seen.setdefault(difference.component, difference)
        until = resumed.trajectory.last_step
        return tuple(
            finding(name, "suspected", f"{words(difference)}; no effect on any step up to {until}")
            for name, difference in seen.items()
        )


def _by_value(chosen: list[Suspect]) -> bool:
    """Whether putting values in place puts these suspects right, so that one without an effect acquits them."""
    return all(
        (suspect.hidden and all(place.settled for place in suspect.hidden))
        or suspect.logged
        or (
            suspect.difference is not None
            and suspect.difference.rung == "state-after-loading"
            and suspect.component != "dtype"
        )
        for suspect in chosen
    )


def _same_steps(one: Run, other: Run) -> bool:
    """Whether two runs resumed from one checkpoint did the same: no effect, no other batch and no other gradient."""
    pair = one.trajectory, other.trajectory
    last = max(run.last_step for run in pair)
    found = compare(*pair, after=pair[0].first_step, until=last, tolerance=BITWISE, steps=1)
    return not any(difference.effect or difference.rung in ("batch-content", "gradients") for difference in found)


def second_point(point: int, last: int) -> int:
    """Where a run that was resumed from `point` is interrupted again: half way to its end."""
    return (point + last + 1) // 2


def _unexplained(blames: list[Blame]) -> bool:
    """Whether the first blame is hidden state, or none: then the place inside the step is worth a look."""
    return not blames or bool(blames[0].suspect.hidden)
