"""What is known about a specimen: facts and import paths, no code."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Specimen:
    """One resume defect and its clean twin.

    Attributes:
        name: unique in the catalogue, and the name of the mutant's build function.
        component: the component that is lost: the right answer of a diagnosis.
        mechanism: how it is lost, in a short phrase; specimens with the same mechanism share the phrase.
        source: the public thread that reports such a bug (`transformers #17032`), or `own`.
        summary: what the mutant does, in one line.
        mutant: import path of the mutant's build function, `pkg.mod:build`.
        twin: import path of the build function of the clean twin.
        steps: length of the run in optimizer steps, which is the target's own `max_steps`.
        at: the resume points; the defect shows at each of them within `steps`.
        also_acceptable: components that a diagnosis may name as well, since they are a defensible view of the defect.
    """

    name: str
    component: str
    mechanism: str
    source: str
    summary: str
    mutant: str
    twin: str
    steps: int
    at: tuple[int, ...]
    also_acceptable: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every component that counts as the right answer, the best one first."""
        return (self.component, *self.also_acceptable)
