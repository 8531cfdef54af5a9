"""Hypothesis strategies of set-ups and of interruptions.

Set-ups that the Trainer cannot resume by itself are left out here, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from resumecheck.options import HORIZONS, INTERRUPTS
from resumecheck.strategies.catalogue import MUTATIONS
from resumecheck.strategies.setup import Setup

#: Field -> its values, the simplest first; a value that is slow to run stands beside more of the others.
#:
#: Left out, since transformers 5.23 does not resume them exactly: `group_by_length`, a sampler without a seed of its
#: own, persistent workers across an epoch's end, iterable data without a length, `ignore_data_skip`; and collators and
#: data sets that draw from a global stream, since the first batches are fetched before the streams are restored.
VALUES: dict[str, tuple[Any, ...]] = {
    "hidden": (4, 8, 2, 6),
    "layers": (1, 2, 3),
    "attention": (False, True),
    "norm": ("none", "layer", "batch"),
    "dropout": (0.0, 0.1, 0.5),
    "frozen": (False, True),
    "precision": ("float32", "float64", "bfloat16", "autocast"),
    "draws": ("none", "python", "numpy", "torch"),
    "rows": (8, 5, 12, 17, 24),
    "batch_size": (2, 1, 3, 4),
    "drop_last": (False, True),
    "workers": (0, 0, 0, 1, 2),
    "accumulation": (1, 2, 3),
    "collator": ("plain", "centred", "noisy"),
    "steps": (6, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12),
    "epochs": (0, 0, 2, 3),
    "optimizer": (
        "adamw",
        "sgd",
        "momentum",
        "adafactor",
        "adagrad",
        "rmsprop",
        "amsgrad",
        "adamax",
        "nadam",
        "radam",
        "adadelta",
    ),
    "weight_decay": (0.0, 0.1),
    "max_grad_norm": (1.0, 0.0),
    "scheduler": (
        "linear",
        "constant",
        "constant_with_warmup",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "inverse_sqrt",
        "reduce_lr_on_plateau",
    ),
    "warmup": (0, 1, 3),
    "evaluate": ("no", "steps", "epoch"),
    "patience": (0, 0, 1, 2, 3),
    "save_every": (0, 1, 2, 3),
    "callback": ("none", "counts", "lowers-dropout", "adds-noise"),
    "seed": (0, 1, 42),
}

LONGEST = 24


@st.composite
def setups(draw: DrawFn, *, mutations: Iterable[str] = ()) -> Setup:
    """Set-ups that a Trainer resumes exactly; with `mutations` each carries one of them.

    A mutated set-up has what its mutation needs to show, in four of five draws.

    Args:
        draw: given by Hypothesis.
        mutations: names in `MUTATIONS`, for example all of them.
    """
    names = tuple(mutations)
    fields: dict[str, Any] = {}
    needs: dict[str, tuple[Any, ...]] = {}
    if names:
        fields["mutation"] = draw(st.sampled_from(names))
        if draw(st.sampled_from((True, True, True, True, False))):
            needs = MUTATIONS[fields["mutation"]].needs
    for name, values in VALUES.items():
        fields[name] = draw(st.sampled_from(needs.get(name, values)))
    setup = Setup(**_mended(**fields))
    points = draw(st.lists(st.integers(1, setup.length - 1), min_size=1, max_size=2, unique=True))
    return dataclasses.replace(setup, at=tuple(sorted(points)))


def _mended(**mended: Any) -> dict[str, Any]:
    """The fields with what does not go together changed."""
    if mended["norm"] == "batch":
        # A batch of one row has no variance.
        mended |= {"batch_size": max(2, mended["batch_size"]), "drop_last": True}
    if mended["optimizer"] in ("nadam", "adafactor") and mended["precision"] in ("float64", "bfloat16"):
        # Loading an optimizer's state takes it to the type of the parameter (torch's Optimizer.load_state_dict). NAdam
        # keeps its product of momenta, and Adafactor its moments, in float32 whatever the parameter is, so that they
        # come back as another type than they were saved as.
        mended["precision"] = "float32"
    if mended["evaluate"] == "no" and mended["scheduler"] == "reduce_lr_on_plateau":
        mended["evaluate"] = "steps"
    if mended["evaluate"] != "steps":
        # Where training stops early is known for evaluations at fixed steps only.
        mended["patience"] = 0
    if mended["evaluate"] == "epoch":
        # A checkpoint that is written at a step which ends an epoch precedes the epoch's evaluation, which then is
        # missing after a resume.
        mended["save_every"] = 0
    setup = Setup(**mended)
    if mended["epochs"] and not 2 <= mended["epochs"] * setup.steps_per_epoch <= LONGEST:
        mended["epochs"] = 0
    if mended["scheduler"] == "polynomial" and mended["warmup"] >= Setup(**mended).length:
        # transformers divides by the steps after the warmup.
        mended["warmup"] = 0
    return mended


def resume_points(steps: int, *, most: int = 3) -> SearchStrategy[list[int]]:
    """Steps of a run from which it can be resumed, in order and without repetition.

    Args:
        steps: optimizer steps of the run, at least 2.
        most: how many points are drawn at most.

    Example:
        >>> from hypothesis import find
        >>> find(resume_points(steps=6), lambda points: len(points) == 2)
        [1, 2]
    """
    return st.lists(st.integers(1, steps - 1), min_size=1, max_size=min(most, steps - 1), unique=True).map(sorted)


def interruptions(steps: int, *, most: int = 2) -> SearchStrategy[dict[str, Any]]:
    """The options of a check that say how a run is interrupted: `at`, `interrupt`, `horizon` and `twice`.

    They are given to `resumecheck.verify` or to the fixture `resumecheck` as they are, together with `steps`. They
    shrink to one resume point, taken from a run that goes on, and compared to the end.

    Args:
        steps: optimizer steps of the run, at least 2.
        most: how many resume points are drawn at most.

    Example:
        >>> from hypothesis import find
        >>> find(interruptions(steps=6), lambda options: options["interrupt"] == "sigkill")
        {'at': [1], 'interrupt': 'sigkill', 'horizon': 'end', 'twice': False}
        >>> find(interruptions(steps=6), lambda options: options["twice"] and min(options["at"]) > 2)
        {'at': [3], 'interrupt': 'stop', 'horizon': 'end', 'twice': True}
    """
    return st.fixed_dictionaries(
        {
            "at": resume_points(steps, most=most),
            "interrupt": st.sampled_from(INTERRUPTS),
            "horizon": st.sampled_from(HORIZONS),
            "twice": st.booleans(),
        }
    )
