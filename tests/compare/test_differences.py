"""The ladder over constructed rows: the first rung that differs comes first, and only effects make a verdict."""

import copy
from pathlib import Path

import pytest

from resumecheck.compare.differences import _logged, compare, first_effect, without
from resumecheck.compare.tolerance import parse_tolerance
from resumecheck.trajectory import Micro, Row, Trajectory

BITWISE = parse_tolerance("bitwise")


def row(step, *, start=False):
    filled = Row(
        step=step,
        start=start,
        state={
            "weights": {"parameter|w": f"float32[2]#{step}"},
            "optimizer-moments": {"exp_avg|w": f"float32[2]#{step}m"},
            "lr-scheduler": {"last_epoch|last_epoch": f"={step}"},
            "counters": {"counter|global_step": f"={step}"},
        },
        identity={"lr_scheduler holds the optimizer": True, "tied": []},
    )
    if not start:
        filled.micro = [Micro(batch=f"dict#{step}", ids=[step, step + 1], loss=1.0 / step)]
        filled.streams = {"rng-torch": f"stream#{step}"}
        filled.gradients = {"w": f"float32[2]#{step}g"}
        filled.grad_norm = 0.5
        filled.lr = [0.1 * step]
    return filled


def run(first, last):
    rows = {first: row(first, start=True)} | {step: row(step) for step in range(first + 1, last + 1)}
    return Trajectory(Path("unused"), {"steps_per_epoch": 4}, rows, first)


def differences(change, *, tolerance=BITWISE, point=3):
    expected, got = run(0, 8), copy.deepcopy(run(point, 8))
    change(got.rows)
    return compare(expected, got, after=point, until=8, tolerance=tolerance)


def test_equal_runs_have_no_difference():
    assert differences(lambda rows: None) == []


def set_state(step, component, key, value):
    def change(rows):
        rows[step].state[component][key] = value

    return change


CHANGES = {
    "state-after-loading": ("weights", 4, set_state(3, "weights", "parameter|w", "float32[2]#x")),
    "identity": ("lr-scheduler", 4, lambda rows: rows[3].identity.update({"lr_scheduler holds the optimizer": False})),
    "sample-ids": ("data-order", 5, lambda rows: setattr(rows[5].micro[0], "ids", [9, 9])),
    "batch-content": ("data-content", 5, lambda rows: setattr(rows[5].micro[0], "batch", "dict#x")),
    "random-streams": ("rng-torch", 6, lambda rows: rows[6].streams.update({"rng-torch": "stream#x"})),
    "loss": ("hidden-state", 4, lambda rows: setattr(rows[4].micro[0], "loss", 9.0)),
    "gradients": ("weights", 4, lambda rows: rows[4].gradients.update({"w": "float32[2]#x"})),
    "learning-rate": ("lr-scheduler", 7, lambda rows: setattr(rows[7], "lr", [9.0])),
    "state-after-step": ("weights", 5, set_state(5, "weights", "parameter|w", "float32[2]#x")),
    "number-of-steps": ("counters", 8, lambda rows: rows.pop(8)),
    "events": ("hidden-state", 6, lambda rows: rows[6].events.append({"kind": "evaluate", "metrics": {"loss": 1.0}})),
    "logs": ("counters", 6, lambda rows: rows[6].events.append({"kind": "log", "logs": {"loss": 1.0}})),
}


@pytest.mark.parametrize("rung", CHANGES)
def test_each_rung_is_seen_at_its_step(rung):
    component, step, change = CHANGES[rung]
    found = differences(change)
    assert (found[0].rung, found[0].step) == (rung, step)
    assert found[0].component in (component, "counters")


@pytest.mark.parametrize("rung", ["identity", "sample-ids", "batch-content", "random-streams", "logs"])
def test_what_only_explains_is_no_effect(rung):
    assert first_effect(differences(CHANGES[rung][2])) is None


@pytest.mark.parametrize(
    "rung", ["state-after-loading", "loss", "learning-rate", "state-after-step", "number-of-steps"]
)
def test_what_makes_another_run_is_an_effect(rung):
    assert first_effect(differences(CHANGES[rung][2])) is not None


def test_a_changed_type_is_named_as_such():
    found = differences(set_state(3, "weights", "parameter|w", "bfloat16[2]#3"))
    assert found[0].component == "dtype"


def test_under_a_tolerance_numbers_within_it_are_equal():
    def change(rows):
        rows[5].micro[0].loss *= 1.0001

    assert differences(change, tolerance=parse_tolerance("close:1e-3,0")) == []
    assert first_effect(differences(change, tolerance=parse_tolerance("close:1e-5,0"))).rung == "loss"


def test_places_on_which_no_two_runs_agree_are_left_out():
    found = differences(set_state(3, "lr-scheduler", "last_epoch|last_epoch", "=x"))
    assert without(found, {"lr-scheduler|last_epoch|last_epoch"}) == []
    assert without(found, {"lr-scheduler|other"}) == found


def test_a_logged_time_hides_no_other_logged_number():
    rows = {step: Row(step, events=[{"kind": "log", "logs": {"time": 1.0, "loss": 2.0}}]) for step in (1, 2)}
    other = {1: rows[1], 2: Row(2, events=[{"kind": "log", "logs": {"time": 5.0, "loss": 3.0}}])}
    found = [difference for step in rows for difference in _logged(step, rows[step], other[step])]
    left = without(found, {"counters|time"})
    assert [(difference.step, difference.name) for difference in left] == [(2, "loss")]
