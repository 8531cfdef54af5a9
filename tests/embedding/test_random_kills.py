"""SIGKILL at random moments of a run that saves after every step; `benchmarks/random_kills.py` does it 200 times."""

import pytest

from tests.embedding.random_kill import RandomKills

pytestmark = pytest.mark.slow


def test_a_run_killed_at_a_random_moment_goes_on_to_the_same_weights(tmp_path):
    kills = RandomKills(tmp_path, seed=0)
    outcomes = [kills.kill_once() for _ in range(5)]
    assert all(outcome.same and outcome.latest for outcome in outcomes), outcomes
