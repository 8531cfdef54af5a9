"""What a failing comparison of recorded runs says."""

import dataclasses
import math
from pathlib import Path

import pytest

from resumecheck.plugin.comparison import explain_equality
from resumecheck.trajectory import Micro, Row, StepValues, Trajectory
from resumecheck.verdict import Divergence, ResumePoint, Verdict

FLOAT32 = 0.6927748322486877  # a float32, and the next one
NEXT_FLOAT32 = 0.6927748918533325


def run(losses, first=0, **fields):
    """A recorded run whose steps have these losses."""
    rows = {first: Row(step=first, start=True)}
    for step, loss in enumerate(losses, first + 1):
        rows[step] = Row(step=step, micro=[Micro("b", loss=loss)], lr=[0.1], **fields)
    return Trajectory(Path(f"run-{first}"), {}, rows, first)


class TestStepValues:
    def test_a_slice_knows_its_steps(self):
        loss = run([3.0, 2.0, 1.0, 0.5]).loss
        assert loss == [None, 3.0, 2.0, 1.0, 0.5]
        assert list(loss[2:].steps) == [2, 3, 4]
        assert list(loss[2:][1:].steps) == [3, 4]
        assert list(loss[-2:].steps) == [3, 4]
        assert list(loss[1::2].steps) == [1, 3]
        assert loss[2] == 2.0

    def test_the_first_step_that_differs_is_told_with_both_values_and_their_distance(self):
        reference, resumed = run([1.0, FLOAT32, 3.0, 4.0]), run([NEXT_FLOAT32, 3.0, 5.0], first=1)
        assert explain_equality(resumed.loss[2:], reference.loss[2:]) == [
            "loss of the run resumed after step 1, steps 2 to 4 == loss of the uninterrupted run, steps 2 to 4",
            "first difference at step 2:",
            "  left   0.6927748918533325",
            "  right  0.6927748322486877",
            "  apart  5.96e-08, 1 ulp (float32)",
            "2 of 3 steps differ: 2, 4",
        ]

    def test_numbers_that_are_no_float32_are_told_apart_as_float64(self):
        lines = explain_equality(run([math.nextafter(0.1, 1)]).loss[1:], run([0.1]).loss[1:])
        assert lines[4] == "  apart  1.39e-17, 1 ulp (float64)"

    def test_slices_that_do_not_begin_at_the_same_step_are_told(self):
        loss = run([1.0, 2.0, 3.0]).loss
        assert "left has steps 1 to 2, right has steps 2 to 3: each step is beside another one" in explain_equality(
            loss[1:3], loss[2:]
        )

    def test_another_number_of_steps_is_told(self):
        loss = run([1.0, 2.0, 3.0]).loss
        assert explain_equality(loss[1:], loss[1:3])[-1] == "left has 3 steps, right has 2"

    def test_other_quantities_are_told(self):
        recorded = run([0.1])
        assert "these are two quantities: loss and learning_rate" in explain_equality(
            recorded.loss, recorded.learning_rate
        )

    def test_nan_on_both_sides_is_told(self):
        lines = explain_equality(run([math.nan]).loss[1:], run([float("nan")]).loss[1:])
        assert lines[-1].startswith("nan equals nothing in Python, itself included; assert_resume_equivalent")

    def test_a_plain_list_beside_them_takes_their_steps(self):
        assert explain_equality([1.0, 9.0], run([1.0, 2.0]).loss[1:])[:2] == [
            "a list of 2 == loss of the uninterrupted run, steps 1 to 2",
            "first difference at step 2:",
        ]

    def test_lists_that_hold_no_record_are_left_to_pytest(self):
        assert explain_equality([1.0], [2.0]) is None

    def test_approx_works_on_them(self):
        assert StepValues([0.1]) == pytest.approx(StepValues([0.1 + 1e-12]))


class TestRuns:
    def test_the_first_difference_in_causal_order_is_told(self):
        reference, resumed = run([1.0, 2.0, 3.0]), run([2.5, 3.0], first=1)
        assert explain_equality(resumed, reference) == [
            "the run resumed after step 1 == the uninterrupted run",
            "first difference at step 2, loss: loss (hidden-state)",
            "  left   2.5",
            "  right  2.0",
            "  apart  0.5, 2,097,152 ulp (float32)",
            "assert_resume_equivalent(reference, resumed) asserts that a run continues another",
        ]

    def test_runs_whose_steps_are_the_same_are_told_to_be_two_records(self):
        lines = explain_equality(run([1.0]), dataclasses.replace(run([1.0]), directory=Path("other")))
        assert lines[1] == "their steps are the same; == also compares where the records are, and when they were made"

    def test_a_step_is_compared_field_by_field_causes_first(self):
        rows = [
            run([loss], state={"weights": {"parameter|a": "1", "parameter|b": digest}}).rows[1]
            for loss, digest in ((1.0, "x"), (2.0, "y"))
        ]
        assert explain_equality(*rows) == [
            "step 1 == step 1",
            "micro differs first at [0]['loss']: 1.0 != 2.0",
            "state differs first at ['weights']['parameter|b']: 'x' != 'y'",
            "loss:",
            "  left   1.0",
            "  right  2.0",
            "  apart  1, 8,388,608 ulp (float32)",
        ]


def test_verdicts_are_compared_by_field_and_by_resume_point():
    divergence = Divergence(5, "loss", "weights", "loss", "", 1.0, 2.0)
    point = ResumePoint(4, "end", "diverged", divergence)
    diverged = Verdict("a.py:build", "diverged", "bitwise", 8, 20, True, (point,))
    equal = dataclasses.replace(
        diverged,
        verdict="equivalent",
        resume_points=(ResumePoint(4, "end", "equivalent"), ResumePoint(6, "end", "error")),
    )
    assert explain_equality(diverged, equal) == [
        "verdict diverged of a.py:build == verdict equivalent of a.py:build",
        "verdict: 'diverged' != 'equivalent'",
        "resume point 4: diverged at step 5 in weights != equivalent",
        "resume point 6: not there != error",
    ]


def test_what_is_equal_or_no_record_is_left_alone():
    assert explain_equality(1.0, 2.0) is None
    assert explain_equality(run([1.0]), [1.0]) is None
