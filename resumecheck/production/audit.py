"""`audit(run_dir)`: was each real resume of a recorded run exact? Open `audit` first.

A resumed segment starts after step k. The state that it starts from is compared with the state that the segment which
saved the checkpoint had at step k, and each step that both have executed is compared rung by rung, as in a check
(`compare/differences.py`). Nothing is repeated, so a cause is suspected and never confirmed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from resumecheck.adapters.levels import at_one_level
from resumecheck.compare.differences import Difference, compare, first_effect
from resumecheck.diagnose.absent import absent_files
from resumecheck.diagnose.determinism import BITWISE
from resumecheck.diagnose.divergence import divergence_of, steps_around, with_float_distance
from resumecheck.diagnose.findings import finding
from resumecheck.diagnose.suspects import Suspect, find_suspects, first_shown, unexplained, words
from resumecheck.production.changes import changes
from resumecheck.production.record import Recorded, read_record, save_event
from resumecheck.production.replay import replayed
from resumecheck.production.result import Audit, Resume, Segment, gravest
from resumecheck.state.capture import NON_PERSISTENT
from resumecheck.trajectory import Trajectory
from resumecheck.verdict import Divergence, Finding, StepPair

#: Counters that follow from the arguments of a start.
_FROM_ARGUMENTS = frozenset(
    {"save_steps", "eval_steps", "logging_steps", "max_steps", "num_train_epochs", "train_batch_size"}
)
#: What to do where a run has started over.
_LOAD = (
    "Give the checkpoint to trainer.train(resume_from_checkpoint=...); resumecheck doctor names the newest whole one."
)
#: The rungs on which what was loaded shows.
_AT_THE_START = ("state-after-loading", "identity")
_LOADED = (*_AT_THE_START, "random-streams")


def audit(run_dir: str | os.PathLike[str]) -> Audit:
    """Say of each resume of a recorded run whether it was exact.

    Args:
        run_dir: the directory that was given to `Recorder`.

    Returns:
        An `Audit`: a verdict for each resume, with the first difference and the components that are suspected.

    Raises:
        UsageError: no record is there, or it is damaged.

    Example:
        >>> for resume in resumecheck.audit("runs/a").resumes:  # doctest: +SKIP
        ...     print(resume.segment, resume.step, resume.verdict, resume.executed_twice)
        2 8 exact 3
    """
    record = read_record(Path(run_dir))
    resumes: list[Resume] = []
    for index, segment in enumerate(record):
        before = [earlier for earlier in record[:index] if earlier.run is not None]
        if segment.run is not None and (before or segment.run.first_step):
            resumes.append(_judge(before, segment, segment.run))
    return Audit(
        record=str(run_dir),
        verdict=gravest(tuple(resumes)),
        segments=tuple(_described(segment) for segment in record),
        resumes=tuple(resumes),
        notes=tuple(_notes(record)),
    )


def _judge(before: Sequence[Recorded], segment: Recorded, got: Trajectory) -> Resume:
    """Compare a segment with the one whose checkpoint it was resumed from."""
    step = got.first_step
    writer = _writer(before, step)
    if writer is None or writer.run is None:
        return Resume(segment.number, step, None, "not-checkable", notes=(_unknown(before, step),))
    changed = changes(writer.facts, segment.facts)
    if changed.device:
        why = f"{changed.device}: digests of a GPU and of a CPU cannot be compared"
        return Resume(segment.number, step, writer.number, "not-checkable", notes=(why, *changed.notes))
    until = max(step, min(writer.last_whole_step, segment.last_whole_step))
    pair = _alike(writer.run, got, until)
    differences = compare(*pair, after=step, until=until, tolerance=BITWISE)
    resume = Resume(segment.number, step, writer.number, "exact", executed_twice=until - step)
    saved = [(earlier.number, max(earlier.saves)) for earlier in before if earlier.saves]
    if step == 0 and saved:
        return _started_over(resume, before, pair, differences, max(saved, key=lambda save: save[1]), changed.notes)
    effect = first_effect(differences)
    lasting = _lasting(differences, step, until)
    if effect is not None or lasting:
        shown = differences if effect is not None else lasting
        findings, divergence = _diagnosed(shown, effect, pair, segment, changed.words)
    else:
        findings, divergence = _without_a_step(resume, writer, segment, pair)
    first = divergence.step if divergence is not None else None
    outcome = "diverged" if findings else "exact" if resume.executed_twice else "state-equal"
    return dataclasses.replace(
        resume,
        verdict=outcome,
        first_divergence=divergence,
        findings=findings,
        latent=_latent(differences, until) if not findings else (),
        window=_window(pair, first),
        notes=(*_proved(outcome, resume, findings, writer, pair), *changed.notes),
    )


def _window(pair: tuple[Trajectory, Trajectory], step: int | None) -> tuple[StepPair, ...]:
    """The steps around the divergence that were executed twice, and the one before them."""
    both = tuple(each for each in steps_around(*pair, step) if each.expected is not None)
    return both if any(each.got is not None for each in both) else ()


def _writer(before: Sequence[Recorded], step: int) -> Recorded | None:
    """The segment whose checkpoint a segment that starts after `step` has loaded, None where it is not recorded."""
    saved = [segment for segment in before if step in segment.saves]
    there = [
        segment
        for segment in before
        if segment.run is not None and step in segment.run.rows and (step == 0 or not segment.run.rows[step].start)
    ]
    return next(reversed(saved or there), None)


def _unknown(before: Sequence[Recorded], step: int) -> str:
    last = max((segment.run.last_step for segment in before if segment.run is not None), default=None)
    if last is None:
        return f"it starts after step {step}, and the record has no run before it"
    if last < step:
        return f"it starts after step {step}, and the record ends with step {last} before it: no state to compare with"
    return f"it starts after step {step}, which no segment before it has executed: no state to compare with"


def _alike(expected: Trajectory, got: Trajectory, until: int) -> tuple[Trajectory, Trajectory]:
    """Both runs with their rows from the resume on, digested at one level."""
    rows = {
        step: at_one_level(expected.rows[step], got.rows[step])
        for step in range(got.first_step, until + 1)
        if step in expected.rows and step in got.rows
    }
    sides = [
        {**run.rows, **{step: pair[side] for step, pair in rows.items()}} for side, run in enumerate((expected, got))
    ]
    return dataclasses.replace(expected, rows=sides[0]), dataclasses.replace(got, rows=sides[1])


def _lasting(differences: list[Difference], step: int, until: int) -> list[Difference]:
    """What was loaded differently, has had no effect, and is still different where the comparison ends."""
    there = {each.component for each in differences if each.step == until and each.rung not in _AT_THE_START}
    return [
        difference
        for difference in differences
        if difference.rung in _LOADED
        and _is_state(difference)
        and difference.quantity != NON_PERSISTENT
        and (until == step or difference.rung == "identity" or difference.component in there)
    ]


def _is_state(difference: Difference) -> bool:
    """Whether it is state of the run: gradients are zeroed, and some counters follow from arguments."""
    names = {key.partition("|")[2] for key in difference.keys} - {""}  # at the level `light` there is no name
    counted = difference.component == "counters" and names <= _FROM_ARGUMENTS
    return not counted and difference.component != "gradient-accumulation"


def _latent(differences: list[Difference], until: int) -> tuple[Finding, ...]:
    found: dict[str, Difference] = {}
    for difference in differences:
        if difference.rung in _LOADED and _is_state(difference):
            found.setdefault(difference.component, difference)
    return tuple(
        finding(name, "suspected", f"{words(difference)}; no effect on any step up to {until}")
        for name, difference in found.items()
    )


def _diagnosed(
    differences: list[Difference],
    effect: Difference | None,
    pair: tuple[Trajectory, Trajectory],
    segment: Recorded,
    changed: str,
) -> tuple[tuple[Finding, ...], Divergence]:
    """The components to suspect, in the order in which causes act, and the first divergence."""
    step = pair[1].first_step
    suspects = [each for each in find_suspects(differences, [], *pair, step) if not each.logged]
    state = [each for each in suspects if each.difference is None or _is_state(each.difference)]
    suspects = state or suspects
    loaded = any(each.difference is not None and each.difference.rung in _AT_THE_START for each in state)
    if changed:
        # What came back different from the checkpoint has no argument for its cause; what differs later may have.
        suspects.insert(len(suspects) if loaded else 0, Suspect("arguments", changed))
    shown = first_shown(differences, effect) if effect is not None else differences[0]
    root = next((each for each in suspects if each.difference is not None), None)
    difference = root.difference if root is not None and root.difference is not None else shown
    later = "" if effect is not None else "; no effect on a step that was executed twice, if there is one"
    findings = [
        finding(
            each.component,
            "suspected",
            each.detail + later,
            first_step=each.difference.step if each.difference is not None else difference.step,
        )
        for each in suspects
    ]
    if not findings and effect is not None:
        findings.append(finding("hidden-state", "suspected", unexplained(effect), first_step=effect.step))
    blamed = [(each.component, each.status) for each in findings]
    findings += absent_files(segment.facts.get("absent_files", {}), step, blamed)
    divergence = with_float_distance(divergence_of(difference))
    return tuple(findings), dataclasses.replace(divergence, component=findings[0].component)


def _without_a_step(
    resume: Resume, writer: Recorded, segment: Recorded, pair: tuple[Trajectory, Trajectory]
) -> tuple[tuple[Finding, ...], Divergence | None]:
    """What shows although no step was executed twice: samples that come again, and streams that were not loaded."""
    if resume.executed_twice:
        return (), None
    again = replayed(*pair)
    if again is not None:
        detail, number, ids = again
        divergence = Divergence(number, "sample-ids", "data-position", "sample ids", "", None, ", ".join(map(str, ids)))
        return (finding("data-position", "suspected", detail),), divergence
    absent = segment.facts.get("absent_files", {})
    for name in _other_streams(pair) or ():
        missing = absent_files(absent, resume.step, [(name, "suspected")])
        if missing:
            streams = pair[0].rows[resume.step], pair[1].rows[resume.step]
            values = (save_event(streams[0]) or {})["streams"][name], streams[1].streams.get(name)
            divergence = Divergence(resume.step + 1, "random-streams", name, "state", "", *values)
            return (finding(name, "suspected", "the stream is not that of the save"), *missing), divergence
    return (), None


def _other_streams(pair: tuple[Trajectory, Trajectory]) -> list[str] | None:
    """The streams that are not those of the save, neither at the first forward nor where an epoch was begun."""
    step = pair[1].first_step
    saved = (save_event(pair[0].rows[step]) or {}).get("streams")
    start = pair[1].rows[step]
    if not isinstance(saved, dict):
        return None
    return [
        name for name, text in saved.items() if text not in (start.streams.get(name), start.epoch_streams.get(name))
    ]


def _proved(
    outcome: str,
    resume: Resume,
    findings: Sequence[Finding],
    writer: Recorded,
    pair: tuple[Trajectory, Trajectory],
) -> list[str]:
    """What the verdict does not say."""
    notes = []
    if resume.step and resume.step not in writer.saves:
        notes.append(f"segment {writer.number} has recorded no save at step {resume.step}: its state is compared")
    if outcome == "state-equal":
        others = _other_streams(pair)
        streams = "the random streams were not recorded there"
        if others is not None:
            streams = (
                f"{', '.join(others)}: not the stream of the save, since something drew or it was not restored"
                if others
                else "the random streams are those of the save"
            )
        notes.append(
            f"no step was executed twice; {streams}; what the data brings, and what no checkpoint holds, is not proved"
        )
    if findings and findings[0].component == "hidden-state":
        notes.append("training that does not repeat itself looks the same: resumecheck verify tells the two apart")
    return notes


def _started_over(
    resume: Resume,
    before: Sequence[Recorded],
    pair: tuple[Trajectory, Trajectory],
    differences: list[Difference],
    saved: tuple[int, int],
    notes: Sequence[str],
) -> Resume:
    """A segment that starts at step 0, though there was a checkpoint."""
    detail = f"it starts at step 0, and step {saved[1]} had been saved (segment {saved[0]}): no checkpoint was loaded"
    weights = pair[1].rows[0].state.get("weights")
    of_step = [
        step
        for segment in before
        if segment.run is not None
        for step in segment.saves
        if step and segment.run.rows[step].state.get("weights") == weights
    ]
    if of_step:
        detail += f"; its weights are those of step {of_step[-1]}, and everything else begins anew"
    effect = first_effect(differences)
    if effect is not None:
        again = f"it is not a repetition either: the first difference is at step {effect.step}, in {effect.component}"
    else:
        again = f"it repeats segment {resume.continues}: {resume.executed_twice} steps executed twice are equal"
    return dataclasses.replace(
        resume,
        verdict="started-over",
        first_divergence=Divergence(
            saved[1] + 1, "state-after-loading", "counters", "counter", "global_step", saved[1], 0
        ),
        findings=(dataclasses.replace(finding("counters", "suspected", detail), advice=_LOAD),),
        notes=(again, *notes),
    )


def _described(segment: Recorded) -> Segment:
    started = segment.facts.get("started")
    return Segment(
        number=segment.number,
        first_step=segment.run.first_step if segment.run is not None else None,
        last_step=segment.run.last_step if segment.run is not None else None,
        saves=segment.saves,
        started=started if isinstance(started, str) else None,
        ended=segment.ended,
        torn=segment.torn,
    )


def _notes(record: Sequence[Recorded]) -> list[str]:
    """What holds for the whole record."""
    notes = []
    for segment in record:
        name = f"segment {segment.number}"
        if segment.run is None:
            notes.append(f"{name} recorded no step: it ended before its first step was over")
        if segment.torn:
            notes.append(f"{name}: the last line of its record is torn, as a kill leaves it, and is left out")
        if segment.facts.get("failed"):
            notes.append(f"{name}: recording failed ({segment.facts['failed']}); what came later is not recorded")
    worlds = [segment.facts.get("environment", {}).get("world_size") for segment in record]
    several = [world for world in worlds if isinstance(world, int) and world > 1]
    if several:
        notes.append(
            f"of {max(several)} processes the first is recorded: data and random streams of the others are not"
        )
    return notes
