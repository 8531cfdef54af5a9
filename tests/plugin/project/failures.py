"""What a failing test shows. Its file, its directory and its target have names that are not ASCII."""

import pytest

from resumecheck import ResumeDivergence

build = "maskiert_größe.py:build"


def test_training(resumecheck):
    resumecheck(build)


def test_that_a_difference_is_found(resumecheck):
    with pytest.raises(AssertionError) as caught:
        resumecheck(build)
    assert caught.value.verdict.resume_points[0].findings[0].component == "data-content"


def test_pieces(reference_run, resumed_run, assert_resume_equivalent):
    reference, resumed = reference_run(build), resumed_run(build, at=2)
    assert_resume_equivalent(reference, resumed, quantities=["learning-rate"])
    with pytest.raises(ResumeDivergence, match="at step 3, loss"):
        assert_resume_equivalent(reference, resumed, quantities=["loss"])
    assert_resume_equivalent(reference, resumed)


def test_losses(reference_run, resumed_run):
    reference, resumed = reference_run(build), resumed_run(build, at=2)
    assert resumed.loss[3:] == reference.loss[3:]


def test_runs(reference_run, resumed_run):
    reference, resumed = reference_run(build), resumed_run(build, at=2)
    assert resumed == reference
