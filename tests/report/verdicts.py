"""Verdicts as facts: the report is a function of them, so no run is needed here."""

import dataclasses

from resumecheck.verdict import Divergence, Finding, ResumePoint, StepPair, Verdict

SCHEDULER = Finding(
    "RC404",
    "lr-scheduler",
    "confirmed",
    "the learning-rate schedule is not restored: last_epoch is 0",
    "Save and load the scheduler's state_dict.",
    {"last_epoch": 0},
)


def window(first_step):
    """Two steps before and two after the first step that differs, which is `first_step`."""
    facts = {"loss": 0.6931471824645996, "learning_rate": 5e-05, "grad_norm": 1.25, "samples": [3, 1, 7]}
    before = [StepPair(step, facts, None, True) for step in (first_step - 2, first_step - 1)]
    changed = {**facts, "learning_rate": 4e-05}
    nearly = {**changed, "loss": 0.6931472420692444}
    return (*before, StepPair(first_step, facts, changed, False), StepPair(first_step + 1, facts, nearly, False))


def resume_point(step, **changes):
    divergence = Divergence(
        step + 1, "learning-rate", "lr-scheduler", "learning_rate", "group 0", 5e-05, 4e-05, 1e-05, 9
    )
    point = ResumePoint(step, "end", "diverged", divergence, (SCHEDULER,), (), window(step + 1), 12 - step)
    return dataclasses.replace(point, **changes)


def equivalent_point(step, **changes):
    return ResumePoint(**{"step": step, "horizon": "end", "verdict": "equivalent", "compared": 12 - step, **changes})


def make_verdict(outcome, *points, **changes):
    facts = {
        "target": "train.py:build",
        "verdict": outcome,
        "tolerance": "bitwise",
        "steps": 12,
        "steps_executed": 40,
        "reference_repeats": outcome != "nondeterministic",
        "resume_points": points,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    }
    return Verdict(**{**facts, **changes})
