"""Evidence as facts: pictures are a function of it, so no run is needed for them."""

import math

from resumecheck.evidence import ComponentState, Evidence, RecordedRun, ResumedRun


def one_ulp_above(value):
    """The next float32."""
    import numpy as np

    return float(np.nextafter(np.float32(value), np.float32(math.inf)))


def recorded_run(name="reference", first_step=0, steps=12, **changes):
    """A run whose loss falls and whose learning rate rises and falls; `changes` maps a quantity to {step: value}."""
    numbers = {
        "loss": {step: 0.5 + 0.25 / step for step in range(1, steps + 1)},
        "learning_rate": {step: 1e-3 * (1 - abs(step / steps - 0.25)) for step in range(1, steps + 1)},
        "grad_norm": {step: 1.0 + step / 8 for step in range(1, steps + 1)},
    }
    for quantity, values in changes.items():
        numbers[quantity] |= values
    after = {
        quantity: tuple(values[step] for step in range(first_step + 1, steps + 1))
        for quantity, values in numbers.items()
    }
    return RecordedRun(name, first_step, **after)


def make_evidence(*resumed, steps=12, **changes):
    """Evidence of a reference run, a source run that is equal, and resumed runs."""
    facts = {
        "reference": recorded_run(steps=steps),
        "source": recorded_run("source", steps=steps),
        "resumed": tuple(ResumedRun(run.first_step, 1, run, states()) for run in resumed),
        "steps_per_epoch": 7,
        "environment": {"python": "3.11.7", "torch": "2.13.0"},
        "arguments": {"learning_rate": "0.001"},
    }
    return Evidence(**{**facts, **changes})


def states():
    """A scheduler that was lost, and weights that part after it."""
    digests = "float32[8,8]#73265dbb28be70461e3515f93a4eb151", "float32[8,8]#eff7252d90adf7ce349b1b1f629fc634"
    return (
        ComponentState("weights", 8, 0, 5, 8, "parameter encoder.weight", *digests),
        ComponentState("lr-scheduler", 3, 1, 5, 1, "state last_epoch", "=4", "=0"),
        ComponentState("counters", 2),
    )
