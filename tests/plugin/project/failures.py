"""What a failing test shows. Its file, its directory and its target have names that are not ASCII."""

import pytest

build = "maskiert_größe.py:build"


def test_training(resumecheck):
    resumecheck(build)


def test_that_a_difference_is_found(resumecheck):
    with pytest.raises(AssertionError):
        resumecheck(build)


def test_pieces(reference_run, resumed_run, assert_resume_equivalent):
    assert_resume_equivalent(reference_run(build), resumed_run(build, at=2))


def test_losses(reference_run, resumed_run):
    reference, resumed = reference_run(build), resumed_run(build, at=2)
    assert resumed.loss[3:] == reference.loss[3:]


def test_runs(reference_run, resumed_run):
    reference, resumed = reference_run(build), resumed_run(build, at=2)
    assert resumed == reference
