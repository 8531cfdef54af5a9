"""Tests that are parametrised with resume points: the points of a test share one check."""

import pytest
from masked_words import build, build_keyed


@pytest.mark.resumecheck(steps=9, at=[3, 7])
def test_masks(resumecheck, resume_point):
    verdict = resumecheck(build)
    assert [point.step for point in verdict.resume_points] == [resume_point]


@pytest.mark.parametrize("resume_point", [2, 3], indirect=True)
@pytest.mark.parametrize("twice", [True])
@pytest.mark.resumecheck(steps=6)
def test_keyed(resumecheck, resume_point, twice, record_property):
    verdict = resumecheck(build_keyed, at=resume_point, twice=twice)
    assert [point.resumes for point in verdict.resume_points] == [1, 2]
    record_property("executed", verdict.steps_executed)


def test_the_point_of_the_ini_file(resumed_run, resume_point):
    assert resumed_run(build_keyed).first_step == resume_point == 2
