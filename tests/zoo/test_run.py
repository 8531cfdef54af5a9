"""What counts as detected, named, confirmed and blamed, on verdicts made by hand."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from resumecheck.errors import UsageError
from resumecheck.verdict import Finding, ResumePoint, Verdict
from resumecheck.zoo import run
from resumecheck.zoo.catalogue import SPECIMENS
from resumecheck.zoo.specimen import Specimen

MUTANT = Specimen(
    name="weights_forgotten",
    component="weights",
    mechanism="not loaded",
    source="own",
    summary="the weights are not loaded",
    mutant="somewhere:weights_forgotten",
    twin="somewhere:weights_forgotten_twin",
    steps=12,
    at=(4, 9),
    also_acceptable=("dtype",),
)
UNSTEADY = dataclasses.replace(MUTANT, name="unsteady", component="nondeterminism", also_acceptable=())
CLEAN = Verdict("somewhere:twin", "equivalent", "bitwise", 12, 40, True)


def blames(*components, status="confirmed"):
    """A verdict with one resume point for each component; None is a resume point that is found equivalent."""
    points = tuple(
        ResumePoint(4 + number, "end", "diverged", findings=(finding(component, status),))
        if component
        else ResumePoint(4 + number, "end", "equivalent")
        for number, component in enumerate(components)
    )
    outcome = "diverged" if any(components) else "equivalent"
    return dataclasses.replace(CLEAN, target="somewhere:mutant", verdict=outcome, resume_points=points)


def finding(component, status="confirmed"):
    return Finding("RC101", component, status, f"{component} are gone", "")


def result(mutant, twin=CLEAN, specimen=MUTANT):
    return run.Result(specimen, mutant, twin)


def test_a_mutant_is_detected_only_where_every_resume_point_diverges():
    assert result(blames("weights", "weights")).detected
    assert not result(blames("weights", None)).detected
    assert not result(blames(None, None)).detected
    assert not result(dataclasses.replace(CLEAN, verdict="error", error="it failed")).detected


def test_the_component_must_come_first_at_every_resume_point():
    assert result(blames("weights", "weights")).named
    assert not result(blames("weights", "dtype")).named
    assert result(blames("weights", "dtype")).named_acceptably
    assert not result(blames("weights", "counters")).named_acceptably
    assert not result(blames(None, None)).named


def test_every_first_finding_must_be_confirmed():
    assert result(blames("weights", "weights")).confirmed
    assert not result(blames("weights", status="suspected")).confirmed
    assert not result(blames(None)).confirmed


def test_a_run_that_does_not_repeat_itself_is_detected_by_that_verdict_only():
    found = dataclasses.replace(CLEAN, verdict="nondeterministic", findings=(finding("nondeterminism"),))
    assert result(found, specimen=UNSTEADY).detected
    assert result(found, specimen=UNSTEADY).named
    assert not result(blames("weights"), specimen=UNSTEADY).detected
    assert not result(found).detected


@pytest.mark.parametrize("outcome", ["diverged", "nondeterministic", "error"])
def test_a_twin_is_left_alone_only_by_the_verdict_equivalent(outcome):
    judged = result(blames("weights"), twin=dataclasses.replace(CLEAN, verdict=outcome))
    assert not judged.twin_left_alone
    assert not judged.well_judged
    assert not run.Report((judged,)).well_judged


def test_the_report_counts_and_tells_what_went_wrong():
    blamed_twin = dataclasses.replace(blames("buffers"), target="somewhere:weights_forgotten_twin")
    results = (result(blames("weights", "weights")), result(blames("dtype")), result(blames(None), blamed_twin))
    report = run.Report(results)
    assert report.numbers == {
        "specimens": 3,
        "mechanisms": 1,
        "detected": 2,
        "named": 1,
        "named_acceptably": 2,
        "confirmed": 2,
        "twins_blamed": 1,
    }
    assert "2 of 3 (67%) detected" in report.summary()
    remarks = list(run.remarks(results))
    assert len(remarks) == 3
    assert "dtype are gone" in remarks[0]
    assert "equivalent: no finding" in remarks[1]
    assert "buffers are gone" in remarks[2]
    assert "resumecheck verify somewhere:weights_forgotten_twin --steps 12 --at 4,9" in remarks[2]
    assert json.loads(json.dumps(report.to_json()))["results"][1]["blamed"][0]["component"] == "dtype"


def test_a_visit_in_which_nothing_goes_wrong_has_no_remarks():
    assert list(run.remarks([result(blames("weights", "weights"))])) == []


def test_the_table_has_a_row_for_each_specimen():
    console = Console(file=io.StringIO(), width=160)
    console.print(run.table([result(blames("weights", "dtype")), result(blames(None), specimen=UNSTEADY)]))
    _head, first, second = console.file.getvalue().splitlines()
    assert first.split() == [
        *("weights_forgotten", "weights", "yes", "weights", "(confirmed)", "/", "dtype", "(confirmed)"),
        *("equivalent", "own"),
    ]
    assert second.split() == ["unsteady", "nondeterminism", "no", "equivalent", "own"]


def test_specimens_are_chosen_by_name_or_component_in_the_order_of_the_catalogue():
    assert run.choose([]) == SPECIMENS
    chosen = run.choose(["scheduler_not_restored", "buffers", "scheduler_not_restored"])
    assert [specimen.component for specimen in chosen] == ["buffers"] * (len(chosen) - 1) + ["lr-scheduler"]


def test_a_name_that_is_not_known_is_refused_with_names_that_are_near():
    with pytest.raises(UsageError, match=r"'scheduler_not_restord'; try: scheduler_not_restored"):
        run.choose(["buffers", "scheduler_not_restord"])
    with pytest.raises(UsageError, match=r"'zzz'; try: arguments, buffers"):
        run.choose(["zzz"])
