"""What an audit found: facts as frozen dataclasses, and their JSON form. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from resumecheck.verdict import Divergence, Finding, StepPair, plain_json

Outcome = Literal["exact", "state-equal", "diverged", "started-over", "not-checkable", "no-resume"]

#: Exit status of the command line for each outcome (2 is wrong usage), the gravest outcome first.
EXIT_STATUS: dict[Outcome, int] = {
    "diverged": 1,
    "started-over": 1,
    "not-checkable": 3,
    "state-equal": 0,
    "exact": 0,
    "no-resume": 0,
}

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Segment:
    """One start of training.

    Attributes:
        number: counted from 1, as in the name of its directory.
        first_step: the step after which it starts, None where it recorded no step.
        last_step: the last step that it recorded.
        saves: the steps at which it saved a checkpoint.
        started: when it was started, in UTC.
        ended: `finished` at the last step, `stopped` where training ended by itself before that, else `interrupted`.
        torn: whether a kill has torn the last line of its record, which is left out.
    """

    number: int
    first_step: int | None
    last_step: int | None
    saves: tuple[int, ...]
    started: str | None
    ended: Literal["finished", "stopped", "interrupted"]
    torn: bool = False


@dataclasses.dataclass(frozen=True)
class Resume:
    """What the record says of one resume.

    Attributes:
        segment: the segment that was resumed.
        step: the step after which it starts.
        continues: the segment whose checkpoint it loaded, None where that is not recorded.
        verdict: `exact` (the state is equal, and so are all steps that were executed twice), `state-equal` (the state
            is equal, and no step was executed twice), `diverged`, `started-over` (from step 0, though there was a
            checkpoint), `not-checkable`.
        executed_twice: how many steps both segments executed, and were compared.
        first_divergence: None where nothing differs.
        findings: in order of blame, the likely root cause first; nothing is confirmed, since no run is repeated.
        latent: state that came back different and had no effect on any step that was executed twice.
        window: the steps around the divergence.
        notes: what changed between the segments, why it cannot be checked, and what is not proved.
    """

    segment: int
    step: int
    continues: int | None
    verdict: Outcome
    executed_twice: int = 0
    first_divergence: Divergence | None = None
    findings: tuple[Finding, ...] = ()
    latent: tuple[Finding, ...] = ()
    window: tuple[StepPair, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Audit:
    """What the record of a production run says of its resumes.

    Attributes:
        record: the directory as given.
        verdict: the gravest of its resumes; `no-resume` where there is none.
        segments: each start of training, in order.
        resumes: each resume, in order.
        notes: what holds for the whole record.
    """

    record: str
    verdict: Outcome
    segments: tuple[Segment, ...]
    resumes: tuple[Resume, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """0 where no resume differs, 1 where one does, 3 where one cannot be checked and none differs."""
        return EXIT_STATUS[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, in the shape of the published schema."""
        return {"schema": SCHEMA_VERSION, **plain_json(dataclasses.asdict(self))}


def gravest(resumes: tuple[Resume, ...]) -> Outcome:
    """The outcome of a record with these resumes."""
    found = {resume.verdict for resume in resumes}
    return next((outcome for outcome in EXIT_STATUS if outcome in found), "no-resume")
