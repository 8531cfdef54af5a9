"""The experiment of `resumecheck crash`: a save is killed at each event in its files, and a resume is tried each time.

A reference run and a source run say whether training repeats itself; a watched run lists the events of the save after
step `at`. For each way to die a run of its own is killed there, and a fresh process resumes from what the target finds
in the output directory. What it ends with is compared with the reference, bit for bit. `of_command.py` does the same
for a command.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from resumecheck.check import TargetLike
from resumecheck.crash.verdict import CrashVerdict, Death, outcome_of
from resumecheck.errors import TargetError, UsageError
from resumecheck.runs.bench import Bench, Experiment, Run, require_complete
from resumecheck.runs.faults import END, FileEvent
from resumecheck.runs.spec import SEEN, Fault
from resumecheck.runs.target import find_target
from resumecheck.trajectory import Trajectory

#: Called with (ways to die tried so far, all of them).
Tell = Callable[[int, int], None]

#: By default the save after this step is killed; the steps after it show whether the resume is exact.
DEFAULT_AT, STEPS_AFTER = 2, 2

#: A way to die: number of the event, the event, torn.
Way = tuple[int, FileEvent, bool]

#: How the path of a file begins that is installed, or belongs to Python.
_INSTALLED = re.compile(r"^.*/(?:site-packages|dist-packages|python3\.\d+)/")

#: What a run starts from, and what it ends with.
_START = ("weights", "loss-parameters", "optimizer-moments", "optimizer-step")
_END = ("weights", "buffers", *_START[1:])


def crash(
    target: TargetLike,
    *,
    steps: int | None = None,
    at: int | None = None,
    limit: int | None = None,
    tell: Tell = lambda done, all_of_them: None,
    bench: Bench | None = None,
) -> CrashVerdict:
    """Kill a save of the target at every event in its files, resume, and say what came back.

    Args:
        target: `pkg.mod:build`, `path/file.py:build` or a callable; `build(output_dir)` returns a trainer.
        steps: stop the runs after this many optimizer steps; by default two after the save.
        at: the step whose save is killed, by default 2; a complete checkpoint of an earlier step is there then.
        limit: try at most so many ways to die, spread over the save.
        tell: called when a way to die has been tried.
        bench: what makes the runs; by default one of its own.

    Returns:
        The outcome after each death.

    Raises:
        UsageError: an option or the target cannot be used, or the save writes nothing.

    Example:
        >>> crash("train.py:build", at=4).verdict  # doctest: +SKIP
        'diverged'
    """
    if bench is None:
        with contextlib.closing(Bench()) as own_bench:
            return crash(target, steps=steps, at=at, limit=limit, tell=tell, bench=own_bench)
    found = find_target(target)
    try:
        planned = require_complete(bench.plan(found))
        own = planned.end.max_steps
        at = DEFAULT_AT if at is None else at
        wanted = at + STEPS_AFTER if steps is None else steps
        length = wanted if own is None else min(wanted, own)
        if not DEFAULT_AT <= at < length:
            raise UsageError(
                f"the save after step {at} cannot be killed in a run of {length} steps: the step is at least 2, so\n"
                "that an earlier checkpoint is there, and less than the length of the run, so that a step follows it"
            )
        experiment = Experiment(found, length, (at // 2, at))
        return _Crash(bench, experiment, limit, tell).verdict()
    except TargetError as error:
        return CrashVerdict(found.name, "error", error=str(error))


class _Crash:
    """One crash check of a target while it goes."""

    def __init__(self, bench: Bench, experiment: Experiment, limit: int | None, tell: Tell) -> None:
        self.bench = bench
        self.experiment = experiment
        self.limit = limit
        self.tell = tell

    def verdict(self) -> CrashVerdict:
        """Reference, source and watched run; then all deaths."""
        from resumecheck.compare.tolerance import parse_tolerance
        from resumecheck.diagnose.determinism import judge_source

        bench, experiment = self.bench, self.experiment
        at = experiment.points[-1]
        reference = require_complete(bench.reference(experiment))
        source = require_complete(bench.source(experiment))
        judgement = judge_source(bench, experiment, reference, source, parse_tolerance("bitwise"))
        facts: dict[str, Any] = {
            "target": experiment.target.name,
            "steps": reference.trajectory.last_step,
            "at": at,
            "versions": reference.trajectory.facts.get("versions", {}),
        }
        if not judgement.repeats or judgement.saving:
            findings = (judgement.finding,) if judgement.finding is not None else ()
            return CrashVerdict(verdict="nondeterministic", findings=findings, **facts)
        events = seen_events(Path(require_complete(bench.dying(experiment, Fault(at))).spec.directory) / SEEN, at)
        ways = ways_to_die(events)
        tried = spread(ways, self.limit)
        done = iter(range(1, len(tried) + 1))
        self.tell(0, len(tried))

        def try_and_tell(way: Way) -> Death:
            death = self.die(reference.trajectory, *way)
            self.tell(next(done), len(tried))
            return death

        deaths = tuple(bench.threads.map(try_and_tell, tried))
        notes = (*reference.end.overridden, *notes_on(len(tried), len(ways)))
        return CrashVerdict(
            verdict=outcome_of(deaths), events=len(events), ways=len(ways), deaths=deaths, notes=notes, **facts
        )

    def die(self, reference: Trajectory, number: int, event: FileEvent, torn: bool) -> Death:
        """Die in one way, resume, and judge."""
        at = self.experiment.points[-1]
        dead = self.bench.dying(self.experiment, Fault(at, number, torn))
        if dead.end.status != "died" or not died_at(dead.directory / SEEN, event):
            detail = f"the run ended: {dead.end.status} {dead.end.error}".rstrip()
            return Death(number, event.kind, event.path, torn, "not-repeated", detail=detail)
        resumed = self.bench.after_death(self.experiment, dead)
        shutil.rmtree(dead.spec.output_dir, ignore_errors=True)
        ending, step, detail = self.judge(reference, resumed)
        return Death(number, event.kind, event.path, torn, ending, step, detail)

    def judge(self, reference: Trajectory, resumed: Run) -> tuple[str, int | None, str]:
        """The ending, the step from which the run went on, and what there is to say."""
        end = resumed.end
        if end.status == "nothing":
            return "nothing-to-resume", None, ""
        if not resumed.complete:
            where = f" at {_INSTALLED.sub('', end.where)}" if end.where else ""
            return "raised", None, f"{end.error}{where}".replace(resumed.spec.output_dir, "{out}")
        return judge_end(reference, resumed.trajectory, self.experiment.points[-1], end.status == "stopped")


# --- shared with of_command ------------------------------------------------------------------------------------------


def seen_events(record: Path, at: int) -> list[FileEvent]:
    """The events that a watched run has listed.

    Raises:
        UsageError: there are none.
    """
    events = [FileEvent(*event) for event in json.loads(record.read_text(encoding="utf-8"))] if record.exists() else []
    if not events:
        raise UsageError(
            f"nothing is written in the output directory after step {at} and before the next; give --at a step after\n"
            "which the target saves, and let it save in the output directory that it is given"
        )
    return events


def died_at(record: Path, event: FileEvent) -> bool:
    """Whether a run noted as its death an event of this kind."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return FileEvent(*json.loads(record.read_text(encoding="utf-8"))).kind == event.kind
    return False


def ways_to_die(events: Sequence[FileEvent]) -> list[Way]:
    """Before each event, in the middle of those that can be torn, and after the last."""
    return [
        (number, event, torn)
        for number, event in enumerate((*events, END), 1)
        for torn in ((False, True) if event.tears else (False,))
    ]


def spread(ways: Sequence[Way], limit: int | None) -> list[Way]:
    """At most so many, from the first to the last."""
    if limit is None or limit >= len(ways):
        return list(ways)
    return [ways[round(place * (len(ways) - 1) / max(1, limit - 1))] for place in range(limit)]


def notes_on(tried: int, ways: int) -> Iterator[str]:
    """What was not tried."""
    if tried < ways:
        yield f"{tried} of {ways} ways to die were tried (--limit), spread over the save; nothing is said of the others"
    yield "a file is torn at half of what was written; other lengths, and a loss of power, were not tried"


def judge_end(
    reference: Trajectory, resumed: Trajectory, at: int, stopped: bool = False
) -> tuple[str, int | None, str]:
    """What a resumed run that ended well makes of the reference.

    Args:
        reference: the uninterrupted run.
        resumed: the resumed run, with whatever numbers it gives its steps.
        at: the step whose save was killed.
        stopped: it was stopped by the number of its step, so that one that started over has not gone to the end.

    Returns:
        The ending, the step whose state the run started from (None where no step has it), and what differs.
    """
    start = resumed.rows[resumed.first_step].state
    step = _step_of(reference, start, resumed.first_step)
    executed = resumed.last_step - resumed.first_step
    last = None if step is None else step + executed
    if last is not None and not stopped and last != reference.last_step:
        return "inexact-resume", step, f"it ended after step {last}, expected {reference.last_step}"
    expected = reference.rows.get(reference.last_step if last is None else last)
    if expected is None:
        return "inexact-resume", step, f"it went on to step {last}, expected {reference.last_step}"
    difference = _first_difference(expected.state, resumed.rows[resumed.last_step].state)
    if step == 0:
        return ("started-over-otherwise" if difference else "started-over"), 0, difference
    if difference:
        return ("other-weights" if step is None else "inexact-resume"), step, difference
    return ("resumed-newest" if step == at else "resumed-older"), step, ""


def _step_of(reference: Trajectory, start: dict[str, dict[str, str]], claimed: int) -> int | None:
    """The step of the reference after which the state is what a run started from: by weights, then by moments."""
    like = [row.step for row in reference.rows.values() if row.state.get("weights") == start.get("weights")]
    whole = [step for step in like if all(reference.rows[step].state.get(part) == start.get(part) for part in _START)]
    candidates = whole or like
    return claimed if claimed in candidates else max(candidates, default=None)


def _first_difference(expected: dict[str, dict[str, str]], got: dict[str, dict[str, str]]) -> str:
    """The first tensor that differs at the end, and how many do; "" where none does."""
    for component in _END:
        pair = expected.get(component, {}), got.get(component, {})
        keys = [key for key in {**pair[0], **pair[1]} if pair[0].get(key) != pair[1].get(key)]
        keys = [key for key in keys if not key.startswith("non-persistent")]
        if keys:
            name = keys[0].partition("|")[2] or keys[0]
            return f"first different in {component}: {name} ({len(keys)} of {len({**pair[0], **pair[1]})})"
    return ""
