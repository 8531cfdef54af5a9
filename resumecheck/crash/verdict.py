"""What came back after each death in a save: facts as frozen dataclasses, and their JSON form.

`experiment.py` makes a `CrashVerdict`; report and command line read it. Nothing here imports torch. The schema of its
JSON is `resumecheck/schema/crash-1.json`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from resumecheck.verdict import EXIT_STATUS, Finding, Outcome, plain_json

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Ending:
    """A kind of outcome of a resume after a death.

    Attributes:
        name: the stable name, as in the JSON.
        good: whether it is what a resume should do.
        meaning: what happened, in half a sentence.
        component: the component whose finding explains it further; "" where it is good.
        advice: what to do about it; "" where it is good.
    """

    name: str
    good: bool
    meaning: str
    component: str = ""
    advice: str = ""


_WHOLE = (
    "Write a checkpoint beside its place, as a whole, and give it its name last, by one rename; remove an older one "
    "only after that."
)

#: Every outcome, the worst last.
ENDINGS: dict[str, Ending] = {
    ending.name: ending
    for ending in (
        Ending("resumed-newest", True, "resumed from the save that was killed, and ended as the reference"),
        Ending("resumed-older", True, "resumed from an older checkpoint, and ended as the reference"),
        Ending(
            "not-repeated",
            False,
            "the event did not happen again, so nothing was killed there",
            "nondeterminism",
            "Let a save do the same each time: no background threads that write, no random order of files.",
        ),
        Ending(
            "nothing-to-resume",
            False,
            "no checkpoint was there to resume from",
            "checkpoint-files",
            f"The older checkpoint was gone before the new one was there. {_WHOLE}",
        ),
        Ending(
            "raised",
            False,
            "the resume ended with an error",
            "resume-failure",
            "A user has to find and remove the torn checkpoint by hand, and an automatic restart fails again and "
            f"again. {_WHOLE} Or choose the newest checkpoint that is whole.",
        ),
        Ending(
            "started-over",
            False,
            "started over from the beginning, though a complete checkpoint was there",
            "checkpoint-files",
            "The work of all steps before is lost, and nothing says so. Choose the newest checkpoint that is whole, "
            "and let a resume that finds none, or cannot load it, be an error.",
        ),
        Ending(
            "started-over-otherwise",
            False,
            "started over from the beginning, and went another way than the reference",
            "checkpoint-files",
            "The work of all steps before is lost, and part of a torn checkpoint was taken. Choose the newest "
            "checkpoint that is whole, and let an error in loading be one.",
        ),
        Ending(
            "inexact-resume",
            False,
            "resumed with the weights of a step, and ended with another state",
            "checkpoint-files",
            "Something else than the weights did not come back: a file was missing or torn and passed over, or the "
            "target does not resume exactly from any checkpoint. `resumecheck verify` names what is lost; where it is "
            "content, the save is at fault.",
        ),
        Ending(
            "other-weights",
            False,
            "resumed without an error from weights of no step, and ended with another state",
            "checkpoint-files",
            f"A torn or half-replaced checkpoint was accepted. {_WHOLE} Store a digest of each file, and check it "
            "when loading.",
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Death:
    """One way to die in a save, and what a resume made of it.

    Attributes:
        number: number of the event in the save, from 1 on.
        kind: `create`, `write`, `sync`, `rename`, `remove`, `mkdir`, `rmdir`, `truncate`, `link`, or `end` after the
            last.
        path: the file, relative to the output directory.
        torn: True where the process died in the middle of the event, with half of the file; False before it.
        ending: a key of `ENDINGS`.
        step: the step from which the resumed run went on, None where it did not or where no step has that state.
        detail: the exception and where it was raised, or the first tensor that differs.
    """

    number: int
    kind: str
    path: str
    torn: bool
    ending: str
    step: int | None = None
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether the resume did what it should."""
        return ENDINGS[self.ending].good


@dataclasses.dataclass(frozen=True)
class CrashVerdict:
    """The answer of `resumecheck crash`.

    Attributes:
        target: the name of the target, or the command.
        verdict: `equivalent` where every resume ended as the reference, without starting over.
        steps: length of the reference run.
        at: the step whose save was killed.
        events: how many events that save has.
        ways: how many ways to die they give: before each, in the middle of those that can be torn,
            and after the last.
        deaths: the ways that were tried, in the order of events.
        findings: where the uninterrupted run does not repeat itself, the finding about that.
        notes: what was not tried or not seen.
        versions: of python, torch, transformers, accelerate, resumecheck.
        error: for the outcome `error`, the exception of the target and where it was raised.
    """

    target: str
    verdict: Outcome
    steps: int = 0
    at: int | None = None
    events: int = 0
    ways: int = 0
    deaths: tuple[Death, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    error: str | None = None

    @property
    def equivalent(self) -> bool:
        """True where every resume did what it should."""
        return self.verdict == "equivalent"

    @property
    def exit_status(self) -> int:
        """The exit status that the command line gives."""
        return EXIT_STATUS[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, in the shape of the published schema."""
        return {"schema": SCHEMA_VERSION, **plain_json(dataclasses.asdict(self))}


def outcome_of(deaths: Sequence[Death]) -> Outcome:
    """The verdict over all deaths."""
    if any(not death.good and death.ending != "not-repeated" for death in deaths):
        return "diverged"
    return "nondeterministic" if any(death.ending == "not-repeated" for death in deaths) else "equivalent"
