"""Blame by putting right: of many hidden places the one that acts is named."""

import pytest

from resumecheck.diagnose.confirm import MOST_PLACES, Left, confirm
from resumecheck.diagnose.suspects import Hidden, hidden_suspect


def places(count):
    return tuple(Hidden(f"model.{n}.training", f"model.{n}.training", "=True", "=False", True) for n in range(count))


@pytest.mark.parametrize("acting", [{0}, {37}, {63}, {5, 6}])
def test_of_many_hidden_places_those_that_act_are_named(acting):
    tried = []

    def trial(chosen):
        units = {unit for suspect in chosen for unit in suspect.units}
        tried.append(units)
        return Left(ended={f"model.{n}.training" for n in acting} <= units)

    (blame,) = confirm([hidden_suspect(places(64))], trial)
    assert blame.status == "confirmed"
    assert set(blame.suspect.units) == {f"model.{n}.training" for n in acting}
    assert len(tried) < 64


def test_places_that_act_together_are_kept_where_no_half_suffices():
    def trial(chosen):
        units = {unit for suspect in chosen for unit in suspect.units}
        return Left(ended={"model.0.training", "model.63.training"} <= units)

    (blame,) = confirm([hidden_suspect(places(64))], trial)
    assert {"model.0.training", "model.63.training"} <= set(blame.suspect.units)
    assert len(blame.suspect.units) <= 64 - MOST_PLACES + 1
