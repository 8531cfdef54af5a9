"""The strategies for targets of one's own: what they draw can be given to a check, and their examples are true."""

import doctest
import importlib

import pytest
from hypothesis import HealthCheck, find, given, settings

from resumecheck import strategies
from resumecheck.options import read_options
from resumecheck.strategies import interruptions, resume_points

QUICK = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(resume_points(5))
def test_resume_points_lie_inside_the_run_in_order(points):
    assert points == sorted(set(points))
    assert 1 <= points[0] <= points[-1] <= 4


@pytest.mark.parametrize("points", [[1], [4], [1, 4], [1, 2, 3]])
def test_any_resume_points_are_drawn(points):
    assert find(resume_points(5), lambda drawn: drawn == points, settings=QUICK) == points


def test_a_run_of_two_steps_has_one():
    assert find(resume_points(2), lambda drawn: True, settings=QUICK) == [1]


@QUICK
@given(interruptions(5))
def test_an_interruption_is_the_options_of_a_check(interruption):
    assert read_options(interruption, "where") == interruption


@pytest.mark.slow
@settings(QUICK, max_examples=3)
@given(interruptions(4))
def test_an_exact_run_survives_any_interruption(workbench, interruption):
    assert workbench.verify("tests/examples/masked_words.py:build_keyed", steps=4, **interruption).equivalent


@pytest.mark.parametrize("module", ["resumecheck.strategies", "resumecheck.strategies.draws"])
def test_the_examples_are_true(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed


def test_every_public_name_is_there_and_documented():
    for name in strategies.__all__:
        assert getattr(strategies, name).__doc__
