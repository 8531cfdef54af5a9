"""The tool on the tool: without any one rung of the ladder something is missed, or something else is named.

Each rung is switched off in turn, and a specimen of the zoo that needs it is judged again from the same records.
"""

import pytest

from resumecheck.compare import differences
from resumecheck.diagnose import point
from resumecheck.runs.bench import Run
from resumecheck.state.components import RUNGS
from resumecheck.trajectory import Row
from resumecheck.zoo.catalogue import SPECIMENS

SPECIMEN = {specimen.name: specimen for specimen in SPECIMENS}

#: rung -> (specimen, what is told with it, what is told without it); told are the component that is blamed first and
#: the rung of the first difference.
NEEDED = {
    "loading": (
        "history_without_the_last_step",
        ("resume-failure", "loading"),
        ("counters", "number-of-steps"),
    ),
    "state-after-loading": (
        "one_weight_one_ulp_off",
        ("weights", "state-after-loading"),
        ("hidden-state", "gradients"),
    ),
    "identity": (
        "layer_replaced_after_the_optimizer",
        ("weights", "identity"),
        ("optimizer-moments", "state-after-loading"),
    ),
    "sample-ids": (
        "order_from_global_stream",
        ("data-order", "sample-ids"),
        ("data-position", "batch-content"),
    ),
    "batch-content": (
        "global_random_in_data_set",
        ("data-content", "batch-content"),
        ("rng-python", "random-streams"),
    ),
    "random-streams": (
        "torch_stream_not_restored",
        ("rng-torch", "random-streams"),
        ("hidden-state", "loss"),
    ),
    "loss": ("scratch_file", ("hidden-state", "loss"), ("hidden-state", "gradients")),
    "gradients": ("errors_of_rounding_lost", ("hidden-state", "gradients"), ("hidden-state", "state-after-step")),
    "learning-rate": (
        "schedule_closure_not_restored",
        ("lr-scheduler", "learning-rate"),
        ("lr-scheduler", "state-after-step"),
    ),
    "state-after-step": ("largest_gradient_forgotten", ("callbacks", "state-after-step"), ("callbacks", "loss")),
    "number-of-steps": ("patience_starts_again", ("callbacks", "number-of-steps"), None),
    "events": ("metric_counts_its_evaluations", ("hidden-state", "events"), ("hidden-state", "learning-rate")),
    "logs": ("decay_follows_the_logged_loss", ("counters", "logs"), ("hidden-state", "state-after-step")),
}


def switch_off(rung, monkeypatch):
    """Find no difference on this rung."""
    for name in ("_row_differences", "_state_differences", "_identity"):
        original = getattr(differences, name)

        def without(*args, original=original):
            return [difference for difference in original(*args) if difference.rung != rung]

        monkeypatch.setattr(differences, name, without)
    compare = point.compare

    def compare_without(*args, **options):
        return [difference for difference in compare(*args, **options) if difference.rung != rung]

    monkeypatch.setattr(point, "compare", compare_without)
    if rung == "sample-ids":
        monkeypatch.setattr(Row, "ids", None)
    if rung == "loading":
        monkeypatch.setattr(Run, "complete", True)


def told(workbench, specimen):
    """(component blamed first, rung of the first difference) at the last resume point; None where nothing is found."""
    verdict = workbench.verify(specimen.mutant, steps=specimen.steps, at=specimen.at[-1:])
    (judged,) = verdict.resume_points
    if judged.first_divergence is None:
        return None
    return judged.findings[0].component, judged.first_divergence.rung


def test_every_rung_is_switched_off():
    assert set(NEEDED) == set(RUNGS)


@pytest.mark.slow
@pytest.mark.parametrize("rung", NEEDED)
def test_without_a_rung_a_mutant_is_missed_or_something_else_is_named(workbench, monkeypatch, rung):
    name, with_it, without_it = NEEDED[rung]
    assert told(workbench, SPECIMEN[name]) == with_it
    switch_off(rung, monkeypatch)
    assert told(workbench, SPECIMEN[name]) == without_it


def test_without_the_logs_nothing_is_said_of_logged_numbers(workbench, monkeypatch):
    def notes():
        verdict = workbench.verify("tests.targets.plain:build", steps=14, at=[7])
        assert verdict.equivalent
        return [note for note in verdict.notes if "logged" in note]

    (note,) = notes()
    assert "loss, train_loss" in note
    switch_off("logs", monkeypatch)
    assert not notes()
