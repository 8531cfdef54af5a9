"""Drawn set-ups shrink to few words, are Python to paste, and hold what they promise."""

import pytest
from hypothesis import HealthCheck, find, given, settings

from resumecheck.strategies import MUTATIONS, Setup, setups

QUICK = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(
    ("condition", "smallest"),
    [
        (lambda setup: setup.dropout > 0 and setup.optimizer != "adamw", "Setup(dropout=0.1, optimizer='sgd')"),
        (lambda setup: setup.evaluate == "steps" and setup.at[-1] > 2, "Setup(evaluate='steps', at=(3,))"),
    ],
)
def test_a_set_up_shrinks_to_what_matters(condition, smallest):
    assert repr(find(setups(), condition, settings=QUICK)) == smallest


def test_a_mutated_set_up_shrinks_to_its_mutation():
    found = find(setups(mutations=["step_lost"]), lambda setup: setup.layers > 1, settings=QUICK)
    assert repr(found) == "Setup(layers=2, mutation='step_lost')"


@QUICK
@given(setups())
def test_a_clean_set_up_is_python_and_is_resumed_inside_its_run(setup):
    assert eval(repr(setup)) == setup
    assert not setup.mutation
    assert all(0 < point < setup.length for point in setup.at)


@QUICK
@given(setups(mutations=MUTATIONS))
def test_a_mutated_set_up_names_its_mutation(setup):
    assert setup.mutation in MUTATIONS


def test_a_set_up_can_be_pasted():
    setup = Setup(rows=12, optimizer="sgd", at=(2, 5), mutation="step_lost")
    assert repr(setup) == "Setup(rows=12, optimizer='sgd', mutation='step_lost', at=(2, 5))"
