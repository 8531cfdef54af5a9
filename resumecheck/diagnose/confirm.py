"""Confirmation by transplant: a suspect is to blame when putting the source run's live value back ends the divergence.

First each suspect alone, in causal order. Where none suffices, all together; if that ends the divergence, suspects are
taken away again one at a time, and those that cannot be missed are all to blame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from resumecheck.diagnose.suspects import Suspect
from resumecheck.verdict import Status

#: At most this many hidden places are tried one by one.
MOST_PLACES = 12

#: Runs the resumed run with these suspects put right; True where no effect is left, None where it could not be tried.
Trial = Callable[[list[Suspect]], bool | None]


@dataclasses.dataclass(frozen=True)
class Blame:
    """A suspect with its status."""

    suspect: Suspect
    status: Status


def confirm(suspects: list[Suspect], trial: Trial) -> list[Blame]:
    """Who is to blame, the root cause first; all `suspected` where no transplant ends the divergence."""
    for suspect in suspects:
        if trial([suspect]):
            return [Blame(_narrowed(suspect, [], trial), "confirmed")]
    if len(suspects) > 1 and trial(suspects):
        needed = list(suspects)
        for suspect in reversed(suspects):
            rest = [other for other in needed if other is not suspect]
            if rest and trial(rest):
                needed = rest
        return [
            Blame(_narrowed(suspect, [other for other in needed if other is not suspect], trial), "confirmed")
            for suspect in needed
        ]
    return [Blame(suspect, "suspected") for suspect in suspects]


def _narrowed(suspect: Suspect, others: list[Suspect], trial: Trial) -> Suspect:
    """Of several hidden places, those that are needed."""
    units = suspect.units
    if len(units) < 2:
        return suspect
    for unit in units[:MOST_PLACES]:
        alone = suspect.only({unit})
        if trial([*others, alone]):
            return alone
    needed = set(units)
    for unit in units[:MOST_PLACES]:
        rest = needed - {unit}
        if rest and trial([*others, suspect.only(rest)]):
            needed = rest
    return suspect.only(needed)
