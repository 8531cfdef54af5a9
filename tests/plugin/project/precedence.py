"""A call wins over the marker, the marker over the command line (4 steps), that over the ini file (6 steps, from 2)."""

import pytest
from masked_words import build_keyed


def points(verdict):
    return verdict.steps, [point.step for point in verdict.resume_points]


def test_the_command_line_wins_over_the_ini_file_which_tells_the_rest(resumecheck):
    assert points(resumecheck(build_keyed)) == (4, [2])


@pytest.mark.resumecheck(steps=5)
def test_the_marker_wins_over_the_command_line(resumecheck):
    assert points(resumecheck(build_keyed)) == (5, [2])


@pytest.mark.resumecheck(at=3)
def test_the_marker_wins_over_the_ini_file(resumecheck):
    assert points(resumecheck(build_keyed)) == (4, [3])


def test_a_call_wins_over_the_command_line(resumecheck, reference_run):
    assert points(resumecheck(build_keyed, steps=5)) == (5, [2])
    assert reference_run(build_keyed, steps=5).last_step == 5


def test_a_call_wins_over_the_ini_file(resumecheck):
    assert points(resumecheck(build_keyed, at=3)) == (4, [3])


@pytest.mark.resumecheck(steps=5, at=[3])
class TestClass:
    @pytest.mark.resumecheck(at=[2])
    def test_the_closest_marker_wins_and_a_call_wins_over_it(self, resumecheck):
        assert points(resumecheck(build_keyed)) == (5, [2])
        assert points(resumecheck(build_keyed, steps=4)) == (4, [2])
