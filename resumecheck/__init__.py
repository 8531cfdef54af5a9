"""resumecheck: is a resumed training run still the same run?

In flows a target (a factory of a trainer), out flows a `Verdict` with evidence. `verify` runs the experiment
(`check.py` is the file to open first); the pytest plugin (`plugin/`) and the command line (`cli.py`) are thin.
Names load lazily, so importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resumecheck.check import verify
    from resumecheck.checkpoints.diagnosis import Diagnosis
    from resumecheck.checkpoints.doctor import doctor
    from resumecheck.comparison import Comparison, diff
    from resumecheck.errors import ResumecheckError, ResumeDivergence, TargetError, UsageError
    from resumecheck.production.audit import audit
    from resumecheck.production.recorder import Recorder
    from resumecheck.production.result import Audit
    from resumecheck.verdict import Divergence, Finding, ResumePoint, Verdict

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Comparison",
    "Diagnosis",
    "Divergence",
    "Finding",
    "Recorder",
    "ResumeDivergence",
    "ResumePoint",
    "ResumecheckError",
    "TargetError",
    "UsageError",
    "Verdict",
    "audit",
    "diff",
    "doctor",
    "verify",
]

_HOME = {
    "Audit": "resumecheck.production.result",
    "Comparison": "resumecheck.comparison",
    "Diagnosis": "resumecheck.checkpoints.diagnosis",
    "Divergence": "resumecheck.verdict",
    "Finding": "resumecheck.verdict",
    "Recorder": "resumecheck.production.recorder",
    "ResumeDivergence": "resumecheck.errors",
    "ResumePoint": "resumecheck.verdict",
    "ResumecheckError": "resumecheck.errors",
    "TargetError": "resumecheck.errors",
    "UsageError": "resumecheck.errors",
    "Verdict": "resumecheck.verdict",
    "audit": "resumecheck.production.audit",
    "diff": "resumecheck.comparison",
    "doctor": "resumecheck.checkpoints.doctor",
    "verify": "resumecheck.check",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'resumecheck' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
