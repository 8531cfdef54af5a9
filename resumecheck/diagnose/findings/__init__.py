"""The table of findings: one place for the stable code, the component, what it means and what to do.

A module for each family of codes: `checkpoint.py` (RC1xx, checkpoint and loading), `data.py` (RC2xx), `streams.py`
(RC3xx, random streams), `optimizer.py` (RC4xx, optimizer and schedule), `hidden.py` (RC5xx, hidden state and
callbacks), `saving.py` (RC6xx, saving and determinism), `arguments.py` (RC7xx, arguments and environment).
`resumecheck explain` and docs/findings.md print the table. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Any

from resumecheck.diagnose.findings import arguments, checkpoint, data, hidden, optimizer, saving, streams
from resumecheck.diagnose.findings.kind import FindingKind
from resumecheck.verdict import Finding, Status

__all__ = ["BY_CODE", "BY_COMPONENT", "FAMILIES", "KINDS", "FindingKind", "finding"]

#: The first digit of the codes of a family -> what the family is about.
FAMILIES: dict[str, str] = {
    "1": "Checkpoint and loading",
    "2": "Data",
    "3": "Random streams",
    "4": "Optimizer and schedule",
    "5": "Hidden state and callbacks",
    "6": "Saving and determinism",
    "7": "Arguments and environment",
}

KINDS: tuple[FindingKind, ...] = (
    *checkpoint.KINDS,
    *data.KINDS,
    *streams.KINDS,
    *optimizer.KINDS,
    *hidden.KINDS,
    *saving.KINDS,
    *arguments.KINDS,
)

BY_CODE: dict[str, FindingKind] = {kind.code: kind for kind in KINDS}
BY_COMPONENT: dict[str, FindingKind] = {kind.component: kind for kind in KINDS}


def finding(component: str, status: Status, detail: str, **evidence: Any) -> Finding:
    """A finding of the kind that belongs to a component."""
    kind = BY_COMPONENT[component]
    message = f"{kind.title}: {detail}" if detail else kind.title
    return Finding(kind.code, component, status, message, kind.advice, evidence)
