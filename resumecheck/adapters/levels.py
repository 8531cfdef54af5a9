"""How much of a step is recorded: at `full` every tensor, at `light` a component by one digest, and parts by turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from resumecheck.state.capture import Leaf
from resumecheck.state.digest import together
from resumecheck.trajectory import Row

Level = Literal["light", "full"]

#: At the level `light` a step digests one of so many parts of the gradients and of the moments, by turns. What differs
#: in the others is seen in the weights, of which each step digests all, as soon as it acts.
PARTS = 8

#: The component of which `light` digests a part in each step.
IN_PARTS = "optimizer-moments"


def part(names: Iterable[str], step: int) -> list[str]:
    """The names whose turn it is: a function of names and step alone, so that two runs digest the same."""
    return sorted(names)[step % PARTS :: PARTS]


def turn(step: int) -> str:
    """The key under which a row at the level `light` has its part."""
    return f"part {step % PARTS + 1} of {PARTS}"


def leaves_of_turn(step: int, every: list[Leaf]) -> list[Leaf]:
    """The leaves without those moments whose turn it is not."""
    chosen = set(part((leaf.key for leaf in every if leaf.component == IN_PARTS), step))
    return [leaf for leaf in every if leaf.component != IN_PARTS or leaf.key in chosen]


def together_by_component(state: dict[str, dict[str, str]], step: int) -> dict[str, dict[str, str]]:
    """One digest for each component."""
    return {
        component: {f"{turn(step) if component == IN_PARTS else 'all'}|": together(digests)}
        for component, digests in state.items()
    }


def at_one_level(one: Row, other: Row) -> tuple[Row, Row]:
    """Two rows of a step, at the level `light` where one of them is: a saved step is recorded in full."""
    key = turn(one.step)
    gradients = one.gradients and other.gradients and (key in one.gradients) != (key in other.gradients)
    if is_light(one) or is_light(other) or gradients:
        return _in_light(one), _in_light(other)
    return one, other


def is_light(row: Row) -> bool:
    """Whether the state of a row has one digest for each component."""
    return all(key.endswith("|") for digests in row.state.values() for key in digests)


def _in_light(row: Row) -> Row:
    """The row as the level `light` would have written it."""
    gradients, state = row.gradients, row.state
    if gradients and turn(row.step) not in gradients:
        gradients = {turn(row.step): together({name: gradients[name] for name in part(gradients, row.step)})}
    if not is_light(row):
        chosen = set(part(state.get(IN_PARTS, {}), row.step))
        kept = {
            component: {key: text for key, text in digests.items() if component != IN_PARTS or key in chosen}
            for component, digests in state.items()
        }
        state = together_by_component({name: digests for name, digests in kept.items() if digests}, row.step)
    return dataclasses.replace(row, gradients=gradients, state=state)
