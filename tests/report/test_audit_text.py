"""An audit as text, for each outcome."""

import pytest
from rich.console import Console

from resumecheck.diagnose.findings import finding
from resumecheck.production.result import EXIT_STATUS, Audit, Resume, Segment, gravest
from resumecheck.report import audit_text
from resumecheck.verdict import Divergence, StepPair

DIVERGENCE = Divergence(9, "loss", "hidden-state", "loss", "", 0.5, 0.25, 0.25, 7)
WINDOW = (StepPair(9, {"loss": 0.5}, {"loss": 0.25}, equal=False),)
RESUMES = {
    "exact": Resume(2, 8, 1, "exact", executed_twice=3, latent=(finding("rng-python", "suspected", "another"),)),
    "state-equal": Resume(2, 8, 1, "state-equal", notes=("no step was executed twice",)),
    "diverged": Resume(
        2, 8, 1, "diverged", 3, DIVERGENCE, (finding("hidden-state", "suspected", "a loss"),), window=WINDOW
    ),
    "started-over": Resume(2, 0, 1, "started-over", 3, DIVERGENCE, (finding("counters", "suspected", "from step 0"),)),
    "not-checkable": Resume(2, 8, None, "not-checkable", notes=("it starts after step 8",)),
}
TOLD = {
    "exact": ("EXACT  runs/a", "step 8 of segment 1", "exact, 3 steps executed twice", "latent      RC301 rng-python"),
    "state-equal": ("STATE EQUAL  runs/a", "note          no step was executed twice"),
    "diverged": (
        "DIVERGED  runs/a",
        "cause       RC501 hidden-state, suspected",
        "interrupted -> resumed",
        "0.5 -> 0.25",
    ),
    "started-over": ("STARTED OVER  runs/a", "segment 2 started over", "cause       RC107", "nothing"),
    "not-checkable": ("NOT CHECKABLE  runs/a", "note          it starts after step 8"),
    "no-resume": ("NO RESUME  runs/a", "the run was never resumed"),
}


def made(outcome):
    """An audit with that outcome: three starts, of which the last recorded no step."""
    segments = (
        Segment(1, 0, 10, (4, 8), None, "interrupted"),
        Segment(2, 8, 8, (), None, "interrupted", torn=True),
        Segment(3, None, None, (), None, "interrupted"),
    )
    resumes = (RESUMES[outcome],) if outcome in RESUMES else ()
    return Audit("runs/a", gravest(resumes), segments, resumes, ("segment 3 recorded no step",))


@pytest.mark.parametrize("outcome", EXIT_STATUS)
def test_every_outcome_is_told(outcome):
    console = Console(width=audit_text.WIDTH + 20, record=True)
    audit_text.render(made(outcome), console)
    text = console.export_text()
    for words in (*TOLD[outcome], "1-10", "none after 8", "note          segment 3 recorded no step"):
        assert words in text


def test_what_a_record_says_is_no_command_to_the_terminal():
    console = Console(width=audit_text.WIDTH + 20, record=True)
    resume = Resume(2, 8, None, "not-checkable", latent=(finding("weights", "suspected", "\x1b[31m"),))
    audit_text.render(Audit("runs/\x1b[31m", "not-checkable", (), (resume,), ("\x1b[31m",)), console)
    assert "\x1b" not in console.export_text()


def test_the_gravest_resume_decides():
    order = ("diverged", "started-over", "not-checkable", "state-equal", "exact")
    for index, outcome in enumerate(order):
        assert gravest(tuple(RESUMES[each] for each in reversed(order[index:]))) == outcome
    assert [EXIT_STATUS[outcome] for outcome in order] == [1, 1, 3, 0, 0]
