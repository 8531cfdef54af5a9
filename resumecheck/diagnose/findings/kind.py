"""What a kind of finding consists of."""

from __future__ import annotations

import dataclasses
from textwrap import dedent


@dataclasses.dataclass(frozen=True)
class FindingKind:
    """A kind of finding.

    Attributes:
        code: the stable name; its first digit is the family.
        component: the component of the training state that is lost.
        title: what was found, in half a sentence.
        advice: what to do about it.
        meaning: what the finding says, and what it does to the run.
        causes: how it comes about, one sentence for each mechanism, with the public thread that reports it.
        example: code that loses the state.
        cure: the same code, mended.
    """

    code: str
    component: str
    title: str
    advice: str
    meaning: str
    causes: tuple[str, ...]
    example: str
    cure: str

    def __post_init__(self) -> None:
        for field in ("example", "cure"):
            object.__setattr__(self, field, dedent(getattr(self, field)).strip() + "\n")
