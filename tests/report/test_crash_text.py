"""The outcomes of `resumecheck crash` as text: counts, events, what to do, and what was not tried."""

import io

import pytest
from rich.console import Console

from resumecheck.crash.verdict import CrashVerdict, Death
from resumecheck.diagnose.findings import finding
from resumecheck.report.crash_text import WIDTH, render


@pytest.fixture
def text():
    def rendered(verdict):
        console = Console(file=io.StringIO(), width=WIDTH + 20)
        render(verdict, console)
        return console.file.getvalue()

    return rendered


DEATHS = (
    Death(1, "create", "a.txt", False, "resumed-older", 1),
    Death(2, "write", "a.txt", False, "raised", None, "ValueError: no file"),
    Death(2, "write", "a.txt", True, "raised", None, "ValueError: no file"),
    Death(3, "end", ".", False, "resumed-newest", 2),
)


def test_a_divergence_is_told_with_its_events(text):
    notes = ("4 of 9 ways to die were tried",)
    told = text(CrashVerdict("train.py:build", "diverged", 4, 2, 3, 9, DEATHS, notes=notes)).splitlines()
    assert told[0] == "DIVERGED  train.py:build: 2 of 4 ways to die in a save do not end in the same run"
    assert told[1] == "  the save after step 2 of 4; 3 events in its files; 4 of 9 ways to die"
    assert "2 of 4  raised: the resume ended with an error" in told
    assert "    ValueError: no file" in told
    assert "       2  before and torn  write a.txt" in told
    assert "       3  after the last event   from step 2" in told
    assert "  more          resumecheck explain RC106" in told
    assert "  note          4 of 9 ways to die were tried" in told


def test_without_a_bad_death_there_is_no_advice(text):
    told = text(CrashVerdict("train.py:build", "equivalent", 4, 2, 3, 2, (DEATHS[0], DEATHS[3])))
    assert told.startswith("EQUIVALENT  train.py:build: wherever it dies in a save, a resumed run is the same run")
    assert "what to do" not in told


def test_a_run_that_does_not_repeat_itself_is_told_with_its_cause(text):
    cause = finding("nondeterminism", "confirmed", "two runs differ")
    told = text(CrashVerdict("train.py:build", "nondeterministic", 4, 2, findings=(cause,)))
    assert told.startswith("NONDETERMINISTIC  train.py:build: the uninterrupted run does not repeat itself")
    assert "RC602 nondeterminism, confirmed" in told


def test_an_error_of_the_target_is_told(text):
    told = text(CrashVerdict("train.py:build", "error", error="the reference run failed: ValueError: no data"))
    assert told.startswith("ERROR  train.py:build: the target failed")
    assert "ValueError: no data" in told
