"""Random training set-ups for Hypothesis: `setups()` draws clean ones, `setups(mutations=MUTATIONS)` defective ones.

A drawn `Setup` is plain values, its `repr` is Python to paste into a test, and it is itself a target:
`resumecheck.verify(setup, steps=setup.length, at=setup.at)`. For a target of your own, `resume_points(steps)` draws
where it is resumed, and `interruptions(steps)` the options of a check: docs/plugin.md. Open `setup.py` first;
`training.py` builds the trainer, `catalogue.py` names the mutations; `draws.py` alone needs the package `hypothesis`.

Example:
    >>> from hypothesis import find
    >>> from resumecheck.strategies import setups
    >>> find(setups(), lambda setup: setup.dropout > 0 and setup.epochs > 1)
    Setup(dropout=0.1, epochs=2)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resumecheck.strategies.catalogue import MUTATIONS
    from resumecheck.strategies.draws import interruptions, resume_points, setups
    from resumecheck.strategies.setup import Setup

__all__ = ["MUTATIONS", "Setup", "interruptions", "resume_points", "setups"]

#: Loaded when asked for: a run's process needs `Setup` and must not wait for the import of hypothesis.
_HOME = {
    "MUTATIONS": "catalogue",
    "Setup": "setup",
    "interruptions": "draws",
    "resume_points": "draws",
    "setups": "draws",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'resumecheck.strategies' has no attribute {name!r}")
    return getattr(importlib.import_module(f"resumecheck.strategies.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
