"""The experiment of `resumecheck crash` for a command that knows nothing of resumecheck: `crash ... -- COMMAND {out}`.

The command runs to its end twice; the second time the events of the save after step `at` are listed. Then, for each way
to die, it is killed there, and run again with its resume option and the output directory as the death has left it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from resumecheck.check_command import compare_records, require_record, require_status
from resumecheck.crash.experiment import (
    Tell,
    Way,
    died_at,
    judge_end,
    notes_on,
    seen_events,
    spread,
    ways_to_die,
)
from resumecheck.crash.verdict import CrashVerdict, Death, outcome_of
from resumecheck.errors import TargetError, UsageError
from resumecheck.runs.command import Command, CommandRun, run_command
from resumecheck.runs.spec import SEEN, Fault

_NOTE = (
    "of the events of a command those are seen that Python causes in its first process, and what torch.save, "
    "safetensors and tokenizers write; what other code writes is seen at the next event"
)


def crash_command(
    command: Command,
    *,
    at: int | None = None,
    limit: int | None = None,
    tell: Tell = lambda done, all_of_them: None,
) -> CrashVerdict:
    """Kill a save of a command at every event in its files, run it again, and say what came back.

    Args:
        command: what to run.
        at: the step whose save is killed; by default the second of those with a checkpoint in the output directory.
        limit: try at most so many ways to die, spread over the save.
        tell: called when a way to die has been tried.

    Raises:
        UsageError: the command cannot be started or watched, or nothing is written after the step.
    """
    root = Path(tempfile.mkdtemp(prefix="resumecheck-")).resolve()
    try:
        return _CrashCommand(command, root, limit, tell).verdict(at)
    except TargetError as error:
        return CrashVerdict(command.name, "error", error=str(error))
    finally:
        shutil.rmtree(root, ignore_errors=True)


class _CrashCommand:
    """One crash check of a command while it goes."""

    def __init__(self, command: Command, root: Path, limit: int | None, tell: Tell) -> None:
        self.command = command
        self.root = root
        self.limit = limit
        self.tell = tell

    def verdict(self, at: int | None) -> CrashVerdict:
        """Reference and watched run; then all deaths."""
        from resumecheck.compare.differences import first_effect
        from resumecheck.diagnose.findings import finding
        from resumecheck.diagnose.suspects import words

        reference = self.complete("reference")
        record = require_record(reference)
        at = self.save_to_kill(at, reference)
        watched = self.complete("watched", Fault(at))
        effect = first_effect(compare_records(record, require_record(watched), 0))
        if effect is not None:
            detail = f"two runs of the command differ first at step {effect.step}, {effect.rung}: {words(effect)}"
            found = finding("nondeterminism", "confirmed", detail, rung=effect.rung)
            return CrashVerdict(self.command.name, "nondeterministic", record.last_step, at, findings=(found,))
        events = seen_events(watched.directory / "record" / SEEN, at)
        ways = ways_to_die(events)
        tried = spread(ways, self.limit)
        deaths: list[Death] = []
        for way in tried:
            self.tell(len(deaths), len(tried))
            deaths.append(self.die(reference, at, way))
        self.tell(len(deaths), len(tried))
        return CrashVerdict(
            target=self.command.name,
            verdict=outcome_of(deaths),
            steps=record.last_step,
            at=at,
            events=len(events),
            ways=len(ways),
            deaths=tuple(deaths),
            notes=(_NOTE, *notes_on(len(tried), len(ways))),
        )

    def complete(self, name: str, fault: Fault | None = None) -> CommandRun:
        """A run that has to end well."""
        return require_status(run_command(self.command, self.root, name, fault=fault))

    def save_to_kill(self, at: int | None, reference: CommandRun) -> int:
        """The step whose save is killed."""
        last = require_record(reference).last_step
        if at is not None:
            if not 1 <= at < last:
                raise UsageError(
                    f"the save after step {at} cannot be killed in a run of {last} steps: it lies between 1 and "
                    f"{last - 1}"
                )
            return at
        there = self.steps_with_checkpoint(reference.out, last)
        if len(there) < 2:
            raise UsageError(
                f"which save to kill is not known: {len(there)} of two checkpoints named {self.command.checkpoint} "
                "were found.\nGive --at a step after which the command saves, and has saved before."
            )
        return there[1]

    def steps_with_checkpoint(self, out: Path, last: int) -> Sequence[int]:
        """The steps before the last whose checkpoint is there."""
        if "{step}" not in self.command.checkpoint:
            return ()
        return [step for step in range(1, last) if self.command.place(out, step).exists()]

    def die(self, reference: CommandRun, at: int, way: Way) -> Death:
        """Die in one way, run again, and judge."""
        number, event, torn = way
        name = f"{number}-{'in' if torn else 'before'}"
        dead = run_command(self.command, self.root, f"killed-{name}", fault=Fault(at, number, torn))
        ending, step, detail = "not-repeated", None, f"the run ended with exit status {dead.status}"
        if died_at(dead.directory / "record" / SEEN, event):
            ending, step, detail = self.resume(reference, at, dead, f"resumed-{name}")
        shutil.rmtree(dead.directory)
        return Death(number, event.kind, event.path, torn, ending, step, detail)

    def resume(self, reference: CommandRun, at: int, dead: CommandRun, name: str) -> tuple[str, int | None, str]:
        """Run again with the resume option, and compare the end."""
        newest = self.command.newest(dead.out)
        if newest is None:
            return "nothing-to-resume", None, ""
        resumed = run_command(self.command, self.root, name, resume=newest, start_from=dead.out)
        try:
            if resumed.status != 0:
                return "raised", None, resumed.last_words.replace(str(self.root / "out"), "{out}")
            if resumed.trajectory is None:
                return "other-weights", None, "it ended without a step"
            return judge_end(require_record(reference), resumed.trajectory, at)
        finally:
            shutil.rmtree(resumed.directory)
