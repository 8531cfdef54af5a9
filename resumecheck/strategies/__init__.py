"""Random training set-ups for Hypothesis: `setups()` draws clean ones, `setups(mutations=MUTATIONS)` defective ones.

A drawn `Setup` is plain values, its `repr` is Python to paste into a test, and it is itself a target:
`resumecheck.verify(setup, steps=setup.length, at=setup.at)`. Open `setup.py` first; `training.py` builds the trainer,
`catalogue.py` names the mutations, `draws.py` needs the package `hypothesis` and nothing else here does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resumecheck.strategies.catalogue import MUTATIONS
    from resumecheck.strategies.draws import setups
    from resumecheck.strategies.setup import Setup

__all__ = ["MUTATIONS", "Setup", "setups"]

#: Loaded when asked for: a run's process needs `Setup` and must not wait for the import of hypothesis.
_HOME = {"MUTATIONS": "catalogue", "Setup": "setup", "setups": "draws"}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'resumecheck.strategies' has no attribute {name!r}")
    return getattr(importlib.import_module(f"resumecheck.strategies.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
