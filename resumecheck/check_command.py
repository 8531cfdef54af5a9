"""The experiment for a command that knows nothing of resumecheck: `resumecheck verify ... -- COMMAND {out}`.

The command runs to its end twice; the second time its output directory is copied after each resume point, or a further
run is killed there. For each resume point it runs again with its resume option, and what was noted at its steps, and
the files that it leaves, are compared. Nothing can be put back into a command, so causes are `suspected`.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumecheck.errors import TargetError, UsageError
from resumecheck.runs.command import Command, CommandRun, run_command
from resumecheck.runs.pool import Progress
from resumecheck.trajectory import Trajectory
from resumecheck.verdict import Divergence, Finding, ResumePoint, Settings, Verdict

if TYPE_CHECKING:
    from resumecheck.compare.checkpoint_files import FileDifference, Place
    from resumecheck.compare.differences import Difference
    from resumecheck.diagnose.suspects import Suspect

#: How a run can be interrupted: its output directory is copied, or it is killed.
COMMAND_INTERRUPTS = ("stop", "sigkill")

#: How the names of components begin that the forward of a step depends on.
_ACTS_FORWARD = ("weights", "dtype", "loss-parameters", "data-", "rng-")

_NOTES = (
    "a command saves in every run: whether saving changes the run was not checked",
    "causes are suspected: nothing can be put back into a command to confirm them",
)


def verify_command(
    command: Command,
    *,
    at: Sequence[int] | str | None = None,
    interrupt: str = "stop",
    keep: Path | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Run, interrupt and resume a command at each resume point, and say whether it is still the same run.

    Args:
        command: what to run.
        at: resume points; by default the first, the middle and the last checkpoint that the command leaves.
        interrupt: `stop` copies the output directory of a run that goes on; `sigkill` kills a run there.
        keep: a new directory in which the runs stay.
        progress: called with (name of the run, steps so far, 0).

    Raises:
        UsageError: an option cannot be used, or a resume point has no checkpoint.
    """
    if interrupt not in COMMAND_INTERRUPTS:
        raise UsageError(f"interrupt: a command is interrupted by one of {', '.join(COMMAND_INTERRUPTS)}")
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise UsageError(f"{keep} is there already and is not an empty directory; give --keep a new one")
    root = keep.resolve() if keep is not None else Path(tempfile.mkdtemp(prefix="resumecheck-"))
    try:
        verdict = _Check(command, root, interrupt, progress).verdict(at)
    except TargetError as error:
        verdict = Verdict(command.name, "error", "bitwise", 0, 0, False, error=str(error))
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)
    settings = Settings(
        interrupt=interrupt,
        command=command.words,
        resume_option=shlex.join(command.resume),
        checkpoint=command.checkpoint,
    )
    return dataclasses.replace(verdict, kept=str(root) if keep is not None else None, settings=settings)


class _Check:
    """One check of a command while it goes."""

    def __init__(self, command: Command, root: Path, interrupt: str, progress: Progress | None) -> None:
        self.command = command
        self.root = root
        self.interrupt = interrupt
        self.progress = progress
        self.steps = 0
        self.logged: set[str] = set()

    def verdict(self, at: Sequence[int] | str | None) -> Verdict:
        """Reference, source and resumed runs, compared."""
        from resumecheck.compare.checkpoint_files import compare_outputs
        from resumecheck.compare.differences import first_effect
        from resumecheck.diagnose.findings import finding
        from resumecheck.diagnose.suspects import words

        reference = self.complete("reference")
        last = require_record(reference).last_step
        points = self.points(at, reference.out, last)
        source = self.complete("source", snapshots=points)
        differences = compare_records(require_record(reference), require_record(source), 0)
        effect = first_effect(differences)
        judged: list[ResumePoint] = []
        findings: tuple[Finding, ...] = ()
        if effect is not None:
            detail = f"two runs of the command differ first at step {effect.step}, {effect.rung}: {words(effect)}"
            findings = (finding("nondeterminism", "confirmed", detail, rung=effect.rung),)
        else:
            noise = {place for difference in differences for place in difference.places}
            changing = {place for each in compare_outputs(reference.out, source.out) for place in each.places}
            judged = [self.judge(point, reference, source, noise, changing) for point in points]
        diverged = any(point.verdict != "equivalent" for point in judged)
        logged = f"rows were logged otherwise, which are no state, in: {', '.join(sorted(self.logged))}"
        return Verdict(
            target=self.command.name,
            verdict="nondeterministic" if effect is not None else "diverged" if diverged else "equivalent",
            tolerance="bitwise",
            steps=last,
            steps_executed=self.steps,
            reference_repeats=effect is None,
            resume_points=tuple(judged),
            findings=findings,
            notes=(*_NOTES, *([logged] if self.logged else [])),
        )

    # --- runs -------------------------------------------------------------------------------------------------------

    def run(self, name: str, **options: Any) -> CommandRun:
        """One run, with its progress told."""
        if self.progress is not None:
            self.progress(name, 0, 0)
        done = run_command(self.command, self.root, name.replace(" ", "-"), **options)
        self.steps += done.steps
        if self.progress is not None:
            self.progress(name, done.steps, 0)
        return done

    def complete(self, name: str, **options: Any) -> CommandRun:
        """A run that has to end well."""
        return require_status(self.run(name, **options))

    def points(self, at: Sequence[int] | str | None, out: Path, last: int) -> list[int]:
        """The resume points; by default of the checkpoints that are left the first, the middle and the last."""
        if at is not None and not isinstance(at, str):
            points = sorted(set(at))
            wrong = [point for point in points if not 1 <= point < last]
            if wrong:
                raise UsageError(
                    f"resume point {wrong[0]} is not inside the run of {last} steps: it lies between 1 and {last - 1}"
                )
            return points
        there = [step for step in range(1, last) if self.command.place(out, step).exists()]
        if at == "every" and "{step}" in self.command.checkpoint and there:
            return there
        if at is not None or "{step}" not in self.command.checkpoint or not there:
            raise UsageError(
                f"which steps have a checkpoint is not known: no {self.command.checkpoint} was found in the output.\n"
                "Give --at the steps after which the command saves, and --checkpoint the name of what it saves."
            )
        return sorted({there[0], there[len(there) // 2], there[-1]})

    def judge(
        self, point: int, reference: CommandRun, source: CommandRun, noise: set[str], changing: Collection[Place]
    ) -> ResumePoint:
        """Resume from a point and compare to the end."""
        from resumecheck.compare.checkpoint_files import compare_outputs
        from resumecheck.compare.differences import without

        expected = require_record(reference)
        found_at_kill = source.directory / "record" / str(point)
        if self.interrupt == "sigkill":
            found_at_kill = self.run(f"source killed at {point}", kill=point).out
        if not self.command.place(found_at_kill, point).exists():
            there = ", ".join(sorted(path.name for path in found_at_kill.iterdir())) or "nothing"
            raise UsageError(
                f"the command has no checkpoint of step {point}: {self.command.place(Path(), point)} is not there, "
                f"but {there}.\nGive --at steps after which it saves, and --checkpoint the name of what it saves."
            )
        resumed = self.run(
            f"resumed from {point}",
            resume=point,
            start_from=found_at_kill,
            handed_out=len(expected.rows[point + 1].micro),
        )
        if resumed.status != 0:
            steps = resumed.steps
            detail = f"after {steps} steps the resumed run ends with exit status {resumed.status}: {resumed.last_words}"
            return _failed(point, steps, "resume-failure", detail, None, resumed.last_words)
        if resumed.trajectory is None:
            return _failed(point, 0, "counters", "the resumed run ends without a step", expected.last_step, point)
        differences = without(compare_records(expected, resumed.trajectory, point), noise)
        told = self.command.told(self.root / "out", found_at_kill, point)
        files = compare_outputs(reference.out, resumed.out, noise=changing, told=told)
        self.logged.update(each.file for each in files if each.logged)
        return _judged(point, reference, resumed, differences, [each for each in files if not each.logged])


def require_status(run: CommandRun) -> CommandRun:
    """The run, if the command got through it and trains.

    Raises:
        TargetError: it ended with an error.
        UsageError: no step of it was seen.
    """
    if run.status != 0:
        raise TargetError(f"the {run.name} run ended with exit status {run.status}; its last line: {run.last_words}")
    if run.trajectory is None:
        raise UsageError(
            "no optimizer step of the command was seen: it has to train with torch,\n"
            "in a Python process that reads PYTHONPATH (not python -I or -E)"
        )
    return run


def require_record(run: CommandRun) -> Trajectory:
    """What was noted of a run that got through."""
    assert run.trajectory is not None
    return run.trajectory


def compare_records(expected: Trajectory, got: Trajectory, after: int) -> list[Difference]:
    """The differences between two recorded runs of a command, bit for bit."""
    from resumecheck.compare.differences import compare
    from resumecheck.compare.tolerance import parse_tolerance

    ends = sorted((expected.last_step, got.last_step))
    if ends[0] < ends[1]:
        # The longer run has noted its buffers after one forward more.
        expected, got = (_without_buffers(run, ends[0]) for run in (expected, got))
    return compare(expected, got, after=after, until=ends[1], tolerance=parse_tolerance("bitwise"))


def _without_buffers(run: Trajectory, step: int) -> Trajectory:
    row = run.rows[step]
    state = {component: leaves for component, leaves in row.state.items() if component != "buffers"}
    return dataclasses.replace(run, rows={**run.rows, step: dataclasses.replace(row, state=state)})


def _failed(point: int, steps: int, component: str, detail: str, expected: Any, got: Any) -> ResumePoint:
    from resumecheck.diagnose.findings import finding

    rung = "number-of-steps" if steps or component == "counters" else "loading"
    divergence = Divergence(point + steps + 1, rung, component, "end of the run", "", expected, got)
    status = "confirmed" if component == "resume-failure" else "suspected"
    return ResumePoint(point, "end", "diverged", divergence, (finding(component, status, detail),))


def _judged(
    point: int, reference: CommandRun, resumed: CommandRun, differences: list[Difference], files: list[FileDifference]
) -> ResumePoint:
    """The verdict of a resume point from what differs at its steps, and in its files."""
    from resumecheck.compare.differences import EFFECT_COMPONENTS, first_effect
    from resumecheck.diagnose.divergence import divergence_of, steps_around, with_float_distance
    from resumecheck.diagnose.findings import finding

    expected, got = require_record(reference), require_record(resumed)
    effect = first_effect(differences)
    of_files = [each for each in files if each.component in (*EFFECT_COMPONENTS, "checkpoint-files")]
    suspects = _suspects(point, reference, resumed, differences, effect)
    compared = min(expected.last_step, got.last_step) - point
    if effect is None and not of_files:
        latent = [finding(each.component, "suspected", f"{each.detail}; no effect on any step") for each in suspects]
        latent += [finding(each.component, "suspected", f"{each.words}; no effect on any step") for each in files]
        return ResumePoint(point, "end", "equivalent", latent=tuple(latent), compared=compared)
    if effect is None:
        first = of_files[0]
        divergence = Divergence(
            expected.last_step, "state-after-step", first.component, first.file, first.name, first.expected, first.got
        )
        findings = [finding(each.component, "suspected", each.words) for each in _first_of_each(of_files)]
    else:
        root = next((each.difference for each in suspects if each.difference is not None), effect)
        divergence = with_float_distance(divergence_of(root))
        if suspects:
            divergence = dataclasses.replace(divergence, component=suspects[0].component)
        told = {each.component: f"; at the end {each.words}" for each in reversed(files)}
        findings = [
            finding(each.component, "suspected", each.detail + told.get(each.component, "")) for each in suspects
        ]
    window = steps_around(expected, got, divergence.step)
    return ResumePoint(point, "end", "diverged", divergence, tuple(findings), window=window, compared=compared)


def _suspects(
    point: int, reference: CommandRun, resumed: CommandRun, differences: list[Difference], effect: Difference | None
) -> list[Suspect]:
    """What could be to blame, in causal order."""
    from resumecheck.diagnose.data import Samples
    from resumecheck.diagnose.suspects import Suspect, find_suspects, words

    expected, got = require_record(reference), require_record(resumed)
    start = expected.rows[0].state, got.rows[point].state
    if start[0] == start[1] and expected.rows[point].state != start[0]:
        detail = f"the resumed run starts with the state of the beginning, expected that after step {point}"
        return [Suspect("counters", detail, effect)]
    samples = Samples(reference.samples, resumed.samples)
    suspects = [each for each in find_suspects(differences, [], expected, got, point, samples) if not each.logged]
    if any(each.component.startswith(_ACTS_FORWARD) for each in suspects):
        # Buffers are noted after the first forward: what it was given differs, so that they have to.
        suspects = [each for each in suspects if each.component != "buffers"]
    if effect is not None and effect.rung == "learning-rate":
        suspects.append(Suspect("lr-scheduler", words(effect), effect))
    if effect is not None and effect.rung == "number-of-steps":
        suspects.append(Suspect("counters", words(effect), effect))
    if effect is not None and not suspects:
        detail = f"{words(effect)} at step {effect.step}, while everything that was noted before it is equal"
        suspects.append(Suspect("hidden-state", detail, effect))
    return suspects


def _first_of_each(files: Iterable[FileDifference]) -> list[FileDifference]:
    """The first difference of each component."""
    found: dict[str, FileDifference] = {}
    for each in files:
        found.setdefault(each.component, each)
    return list(found.values())
