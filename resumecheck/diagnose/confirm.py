"""Confirmation by transplant: a suspect is to blame when putting the source run's live value back ends the divergence.

First each suspect alone, in causal order. Where none suffices, all together; if that ends the divergence, suspects are
taken away again one at a time, and those that cannot be missed are all to blame. Where nothing suffices all are
suspected, without those that change nothing, bit for bit, when they are put right alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from resumecheck.diagnose.suspects import Suspect
from resumecheck.verdict import Status

#: At most this many hidden places are tried one by one.
MOST_PLACES = 12

#: How often further suspects are looked for behind those that were put right.
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Blame:
    """A suspect with its status."""

    suspect: Suspect
    status: Status


@dataclasses.dataclass(frozen=True)
class Left:
    """What is left of the divergence once some suspects are put right.

    Attributes:
        ended: nothing is left.
        suspects: suspects of what is left, which may show only now.
        idle: every suspect was put right, and the steps that follow are the same bit for bit as before.
    """

    ended: bool
    suspects: tuple[Suspect, ...] = ()
    idle: bool = False


#: Runs the resumed run with these suspects put right; None where it could not be tried.
Trial = Callable[[list[Suspect]], "Left | None"]


def confirm(suspects: list[Suspect], trial: Trial) -> list[Blame]:
    """Who is to blame, the root cause first; all `suspected` where no transplant ends the divergence.

    Nobody where each suspect, put right alone, changes nothing: then the cause lies in none of them.
    """

    def ends(chosen: list[Suspect]) -> bool:
        left = trial(chosen)
        return left is not None and left.ended

    idle: list[Suspect] = []
    for suspect in suspects:
        alone = trial([suspect])
        if alone is not None and alone.ended:
            return [Blame(_narrowed(suspect, [], ends), "confirmed")]
        if alone is not None and alone.idle:
            idle.append(suspect)
    together = list(suspects)
    for _ in range(ROUNDS):
        left = trial(together)
        if left is None:
            break
        if left.ended:
            return _needed(together, ends)
        # Behind what was put right, something later may have been hidden.
        known = {suspect.component for suspect in together}
        more = [suspect for suspect in left.suspects if suspect.component not in known]
        if not more:
            break
        together += more
    left_over: list[Blame] = []
    for suspect in suspects:
        if any(suspect is other for other in idle):
            continue
        blame = _place_by_place(suspect, trial)
        if blame.status == "confirmed":
            return [blame]
        left_over.append(blame)
    return left_over


def _place_by_place(suspect: Suspect, trial: Trial) -> Blame:
    """Of several hidden places that do not suffice together, the one that does, or those that change something."""
    units = suspect.units
    if len(units) < 2:
        return Blame(suspect, "suspected")
    acting = set(units)
    for unit in units[:MOST_PLACES]:
        alone = suspect.only({unit})
        left = trial([alone])
        if left is not None and left.ended:
            return Blame(alone, "confirmed")
        if left is not None and left.idle:
            acting.discard(unit)
    return Blame(suspect.only(acting) if acting else suspect, "suspected")


def _needed(together: list[Suspect], ends: Callable[[list[Suspect]], bool]) -> list[Blame]:
    """Of suspects that together end the divergence, those that cannot be missed."""
    needed = list(together)
    for suspect in reversed(together):
        rest = [other for other in needed if other is not suspect]
        if rest and ends(rest):
            needed = rest
    return [
        Blame(_narrowed(suspect, [other for other in needed if other is not suspect], ends), "confirmed")
        for suspect in needed
    ]


def _narrowed(suspect: Suspect, others: list[Suspect], ends: Callable[[list[Suspect]], bool]) -> Suspect:
    """Of several hidden places, those that are needed; of many first the half that suffices, and so on."""
    units = suspect.units
    if len(units) < 2:
        return suspect
    while len(units) > MOST_PLACES:
        halves = units[: len(units) // 2], units[len(units) // 2 :]
        enough = next((half for half in halves if ends([*others, suspect.only(set(half))])), None)
        if enough is None:
            break
        suspect, units = suspect.only(set(enough)), enough
    for unit in units[:MOST_PLACES]:
        alone = suspect.only({unit})
        if ends([*others, alone]):
            return alone
    needed = set(units)
    for unit in units[:MOST_PLACES]:
        rest = needed - {unit}
        if rest and ends([*others, suspect.only(rest)]):
            needed = rest
    return suspect.only(needed)
