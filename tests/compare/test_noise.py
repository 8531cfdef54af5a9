"""The tolerance `noise`: its quantiles, its error rate on draws, what it sees, and what it says it cannot see."""

import random

import pytest

from resumecheck.compare.noise import measure, student_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    [(0.95, 1, 6.313752), (0.975, 2, 4.302653), (0.975, 7, 2.364624), (0.975, 8, 2.306004), (0.9995, 7, 5.407883)],
)
def test_quantiles_are_those_of_the_tables(probability, freedom, value):
    assert student_quantile(probability, freedom) == pytest.approx(value, abs=1e-6)


def draws(generator, count, places=5):
    return {(step, "loss", "loss", ""): generator.gauss(1.0, 1e-3) for step in range(places)}


def test_an_unchanged_run_is_refused_about_as_often_as_stated():
    generator = random.Random(1)
    refused = 0
    for _ in range(2000):
        spread = measure([draws(generator, 8) for _ in range(8)], error_rate=0.05)
        refused += any(True for _ in spread.outside(draws(generator, 1)))
    assert 0.02 < refused / 2000 < 0.06


def test_an_effect_beyond_the_reach_is_seen():
    generator = random.Random(2)
    spread = measure([draws(generator, 8) for _ in range(8)])
    changed = {place: value + 2 * spread.reach() for place, value in draws(generator, 1).items()}
    assert len(list(spread.outside(changed))) == 5


def test_a_number_that_never_varies_must_not_vary():
    place = (1, "learning-rate", "learning rate", "group 0")
    spread = measure([{place: 0.1}] * 8)
    assert not list(spread.outside({place: 0.1}))
    assert list(spread.outside({place: 0.1000001}))
