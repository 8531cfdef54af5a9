from xml.etree import ElementTree as Tree

import pytest
from recorded import make_evidence, recorded_run
from verdicts import equivalent_point, make_verdict, resume_point

from resumecheck.evidence import RecordedRun
from resumecheck.report.timeline import LEFT, RIGHT, WIDTH, shown_points, step_ticks, timeline
from resumecheck.verdict import Divergence, Finding


def drawn(verdict, evidence):
    return Tree.fromstring(timeline(verdict, evidence))


def of_class(svg, name):
    return [each for each in svg.iter() if name in (each.get("class") or "").split()]


def step_at(x, steps=12):
    return round((float(x) - LEFT) / (WIDTH - RIGHT - LEFT) * steps, 2)


def test_a_resumed_run_starts_at_its_checkpoint_and_parts_where_it_differs():
    point = resume_point(4, first_divergence=Divergence(8, "loss", "weights", "loss", "", 1.0, 2.0))
    svg = drawn(make_verdict("diverged", point), make_evidence(recorded_run("resumed from 4", 4)))
    (same,) = of_class(svg, "same")
    (apart,) = of_class(svg, "apart")
    assert [step_at(same.get("x1")), step_at(same.get("x2"))] == [4, 7]
    assert [step_at(apart.get("x1")), step_at(apart.get("x2"))] == [7, 12]
    assert [title.text for title in svg.iter("title")] == ["step 8: weights"]


def test_an_equivalent_run_has_no_mark_of_a_difference():
    svg = drawn(make_verdict("equivalent", equivalent_point(4)), make_evidence(recorded_run("resumed from 4", 4)))
    assert of_class(svg, "apart") == of_class(svg, "cross") == []
    assert "resumed from step 4: the same run to the end" in svg.get("aria-label")


def test_a_run_that_died_while_loading_is_a_mark_at_its_checkpoint():
    divergence = Divergence(5, "loading", "resume-failure", "exception", "", None, "KeyError: 'step'")
    verdict = make_verdict("diverged", resume_point(4, first_divergence=divergence, window=()))
    svg = drawn(verdict, make_evidence(RecordedRun("resumed from 4", 4)))
    assert of_class(svg, "apart") == []
    (cross,) = of_class(svg, "cross")
    assert step_at(float(cross.get("d").split()[0][1:]) + 5) == 4
    assert "fails at step 5" in svg.get("aria-label")


def test_checkpoints_are_on_the_source_run():
    source = RecordedRun("source", 0, recorded_run().loss, checkpoints=(4, 9))
    svg = drawn(make_verdict("equivalent"), make_evidence(source=source))
    assert [mark.find("title").text for mark in of_class(svg, "checkpoint")] == [
        "checkpoint after step 4",
        "checkpoint after step 9",
    ]


def test_where_an_uninterrupted_run_does_not_repeat_itself_the_source_is_marked():
    source = recorded_run("source", loss={6: 9.0})
    svg = drawn(make_verdict("nondeterministic"), make_evidence(source=source))
    assert [title.text for title in svg.iter("title")] == ["source and reference part at step 6"]
    assert "not the reference run again" in [text.text for text in svg.iter("text")]


def test_where_saving_is_to_blame_the_source_is_marked():
    saving = Finding("RC601", "saving", "confirmed", "saving changes the run", "")
    verdict = make_verdict("diverged", resume_point(4, findings=(saving,)))
    svg = drawn(verdict, make_evidence(recorded_run("resumed from 4", 4)))
    assert "saving changes the run" in [text.text for text in svg.iter("text")]


def test_a_difference_before_the_resume_point_is_no_mark_on_the_resumed_run():
    point = resume_point(9, first_divergence=Divergence(5, "random-streams", "saving", "state", "", "a", "b"))
    svg = drawn(make_verdict("diverged", point), make_evidence(recorded_run("resumed from 9", 9)))
    assert of_class(svg, "cross") == []


def test_every_kind_of_failure_is_drawn_before_points_that_passed():
    other = Finding("RC204", "data-content", "suspected", "", "")
    passed = [equivalent_point(step) for step in range(1, 150)]
    failed = [resume_point(step) for step in range(150, 190)]
    verdict = make_verdict("diverged", *passed, *failed, resume_point(195, findings=(other,)))
    steps = [point.step for point in shown_points(verdict)]
    assert steps == [150, *range(151, 159), 195]


@pytest.mark.parametrize("last", [1, 7, 12, 200, 12345])
def test_ticks_are_few_and_round(last):
    ticks = step_ticks(last)
    assert ticks[0] == 0
    assert len(ticks) <= 13
    assert ticks[-1] <= last
