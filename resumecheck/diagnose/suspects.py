"""From differences and censuses to suspects: which states could be to blame, in the order in which causes act."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from resumecheck.compare.differences import Difference
from resumecheck.diagnose.data import DATA, Samples, classify_data
from resumecheck.trajectory import Trajectory

#: Components that a transplant puts in place by name.
STATE = frozenset(
    {
        "weights", "buffers", "loss-parameters", "dtype", "optimizer-moments", "optimizer-step",
        "optimizer-hyperparameters", "lr-scheduler", "grad-scaler", "gradient-accumulation", "counters", "callbacks",
    }
)  # fmt: skip

#: Start of a path of the census -> the component it belongs to, in the order in which they are suspected.
_COMPONENT_OF_ROOT = {
    "arguments.": "arguments",
    "lr_scheduler.optimizer.": "hidden-state",  # the wrapper of an optimizer, which the schedule only holds
    "lr_scheduler.": "lr-scheduler",
    "callbacks.": "callbacks",
}

#: The order in which hidden places are suspected, by component.
_HIDDEN_ORDER = ("arguments", "weights", "lr-scheduler", "hidden-state", "callbacks")

#: Components that are suspected after all others of a step, and in which order.
_LATE = {"gradient-accumulation": 1, "counters": 2, "callbacks": 2}

#: How the census writes the variables of a generator.
LOCALS = ".<locals>."

#: How the census notes that a module or parameter is one that it has found before.
SAME_OBJECT = "is "


@dataclasses.dataclass(frozen=True)
class Hidden:
    """A path of the census at which the resumed run holds another value.

    `changed` says whether the value changed while the source run trained: those are tried first. `library` says whether
    it lies inside an object of an installed library. `settled` says whether two uninterrupted runs agree on all of the
    unit: where they do not (a dictionary by `id()`), putting it in another process need not put it right.
    """

    path: str
    unit: str
    expected: str | None
    got: str | None
    changed: bool
    library: bool = False
    settled: bool = True

    @property
    def component(self) -> str:
        """The component that the place belongs to; `hidden-state` where it belongs to none."""
        if self.other_object:
            return "weights"
        return next((name for root, name in _COMPONENT_OF_ROOT.items() if self.path.startswith(root)), "hidden-state")

    @property
    def other_object(self) -> bool:
        """Whether the uninterrupted run has here the very module or parameter that it has elsewhere."""
        return self.expected is not None and self.expected.startswith(SAME_OBJECT)

    @property
    def words(self) -> str:
        """`model.calls: expected 5, got 0`."""
        if self.other_object and self.expected is not None:
            return f"{self.path}: expected the same object as {self.expected.removeprefix(SAME_OBJECT)}, got another"
        return f"{self.path}: expected {_plain(self.expected)}, got {_plain(self.got)}"


@dataclasses.dataclass(frozen=True)
class Suspect:
    """One state that could be to blame.

    Attributes:
        component: what is blamed.
        detail: the evidence in words.
        difference: the first difference that shows it, None for hidden state.
        hidden: places of the census, for hidden state.
    """

    component: str
    detail: str
    difference: Difference | None = None
    hidden: tuple[Hidden, ...] = ()

    @property
    def logged(self) -> bool:
        """Whether it is a logged number by which something may have been decided."""
        return self.difference is not None and self.difference.rung == "logs"

    @property
    def units(self) -> tuple[str, ...]:
        """What a transplant puts in place, each once."""
        return tuple(dict.fromkeys(place.unit for place in self.hidden))

    def only(self, units: set[str]) -> Suspect:
        """The same suspect with some of its hidden places."""
        return hidden_suspect(tuple(place for place in self.hidden if place.unit in units))


def hidden_suspect(places: tuple[Hidden, ...]) -> Suspect:
    """Hidden places as one suspect."""
    shown = "; ".join(place.words for place in places[:3])
    others = f" (and {len(places) - 3} more)" if len(places) > 3 else ""
    components = {place.component for place in places}
    return Suspect(components.pop() if len(components) == 1 else "hidden-state", shown + others, hidden=places)


def find_suspects(
    differences: list[Difference],
    hidden: list[Hidden],
    expected: Trajectory,
    got: Trajectory,
    after: int,
    samples: Samples | None = None,
) -> list[Suspect]:
    """Suspects in causal order: changed arguments, then what differs first, hidden state, and what was logged.

    Args:
        differences: of the resumed run, in causal order.
        hidden: from the census.
        expected: the run that the differences are against.
        got: the resumed run.
        after: the resume point.
        samples: the samples of both runs by content, where their indices do not tell.
    """
    effects = [difference.step for difference in differences if difference.effect]
    last = min(effects) if effects else max((difference.step for difference in differences), default=0)
    suspects: dict[str, Suspect] = {}
    data = [difference for difference in differences if difference.component in DATA and difference.step <= last]
    classified = Suspect(*classify_data(data, expected, got, samples)) if data else None
    streams = _streams_at_epoch_start(expected, got, after)
    if streams and data and data[0].step == after + 1:
        for name in streams:
            suspects[name] = Suspect(name, "the stream differs where the epoch's order is drawn", data[0])
    for difference in differences:
        if difference.step > last:
            break
        if difference.component in DATA:
            if classified is not None:
                suspects.setdefault(classified.component, classified)
        elif difference.rung in ("state-after-loading", "identity", "random-streams"):
            suspects.setdefault(difference.component, Suspect(difference.component, words(difference), difference))
    ordered = sorted(
        suspects.values(), key=lambda suspect: suspect.difference.order if suspect.difference else (10**9, 0, 0)
    )
    # A schedule sets options of the groups, and no group sets a schedule.
    if any(suspect.component == "lr-scheduler" and _of_schedule_itself(suspect) for suspect in ordered):
        ordered.sort(key=lambda suspect: suspect.component == "optimizer-hyperparameters" and not _identity(suspect))
    # What a counter or a callback holds is looked at after everything that acts on the next step by itself, and
    # gradients too: most loops zero them before they are used.
    ordered.sort(key=lambda suspect: _LATE.get(suspect.component, 0))
    if streams and data and data[0].step == after + 1:
        ordered.sort(key=lambda suspect: suspect.component not in streams)
    parts: dict[str, list[Hidden]] = {}
    for place in hidden:
        parts.setdefault(place.component, []).append(place)
    of_hidden = [hidden_suspect(tuple(parts[name])) for name in _HIDDEN_ORDER if name in parts]
    arguments = [suspect for suspect in of_hidden if suspect.component == "arguments"]
    others = [suspect for suspect in of_hidden if suspect.component != "arguments"]
    return arguments + ordered + others + _logged_before(differences)


def _of_schedule_itself(suspect: Suspect) -> bool:
    """Whether the schedule has another state, and not only the groups another rate."""
    keys = suspect.difference.keys if suspect.difference is not None else ()
    return any(not key.startswith("lr|") for key in keys)


def _identity(suspect: Suspect) -> bool:
    return suspect.difference is not None and suspect.difference.rung == "identity"


def _logged_before(differences: list[Difference]) -> list[Suspect]:
    """A logged number that differs before anything with an effect does: something may decide by it."""
    for difference in differences:
        if difference.effect:
            break
        if difference.rung == "logs" and difference.name:
            detail = f"{words(difference)} at step {difference.step}, and what follows is decided by it"
            return [Suspect(difference.component, detail, difference)]
    return []


def first_shown(differences: list[Difference], effect: Difference) -> Difference:
    """Where hidden state first shows: at the step of the effect, but perhaps in the gradients before it."""
    inside = ("loss", "gradients", "learning-rate")
    return next((d for d in differences if d.step == effect.step and d.rung in inside), effect)


def unexplained(effect: Difference, inside: str = "") -> str:
    """An effect that nothing explains, in words; `inside` says where in the step it begins, if that is known."""
    where = inside or "what differs lies outside what was captured"
    return f"{words(effect)} at step {effect.step}, while everything that was compared before it is equal; {where}"


def words(difference: Difference) -> str:
    """A difference in words."""
    name = f"{difference.name} " if difference.name else ""
    quantity = "" if difference.quantity in ("parameter", "buffer", "gradient") else f"{difference.quantity} "
    others = f" (and {difference.count - 1} more)" if difference.count > 1 else ""
    return (
        f"{name}{quantity}".strip() + f": expected {_plain(difference.expected)}, got {_plain(difference.got)}{others}"
    )


def _streams_at_epoch_start(expected: Trajectory, got: Trajectory, after: int) -> list[str]:
    """Streams that differ where the epoch's order is drawn, if the resume point is an epoch boundary."""
    rows = expected.rows.get(after + 1), got.rows.get(after + 1)
    if rows[0] is None or rows[1] is None or not rows[0].epoch_streams or not rows[1].epoch_streams:
        return []
    return [name for name, text in rows[0].epoch_streams.items() if rows[1].epoch_streams.get(name) != text]


def read_census(directory: Path, moment: str | int) -> dict[str, Any]:
    """A stored census; empty where there is none."""
    path = directory / f"census-{moment}.json"
    return (
        json.loads(path.read_text(encoding="utf-8"))
        if path.exists()
        else {"entries": {}, "units": {}, "objects": {}, "left_out": {}}
    )


def find_hidden(reference: Path, source: Path, resumed: Path, after: int, moment: str = "start") -> list[Hidden]:
    """Paths at which the resumed run differs from the source run, and on which reference and source agree.

    Those that changed while the source run trained come first.

    Args:
        reference: directory of the reference run.
        source: directory of the source run.
        resumed: directory of the resumed run.
        after: the step after which the source run is looked at.
        moment: where the resumed run is looked at: `start` or `end`.
    """
    start, at, elsewhere = (read_census(*place) for place in ((source, "start"), (source, after), (reference, after)))
    now = read_census(resumed, moment)
    library = {*at.get("library", ()), *now.get("library", ())}
    for census in (at, now):
        census["objects"] = dict.fromkeys(census.get("objects", ()))
    found: list[Hidden] = []
    differing = {path for path, text in at["entries"].items() if elsewhere["entries"].get(path) != text}
    unsettled = {at["units"].get(path, path) for path in differing}
    for path in {**at["entries"], **now["entries"]}:
        expected, got = at["entries"].get(path), now["entries"].get(path)
        if expected == got or elsewhere["entries"].get(path) != expected:
            continue
        if None in (expected, got) and LOCALS in path:
            continue  # A variable of a running generator that is not there yet is set before it is used.
        unit = _missing_object(path, at, now) or at["units"].get(path) or now["units"].get(path) or path
        changed = start["entries"].get(path) != expected
        found.append(Hidden(path, unit, expected, got, changed, path in library, settled=unit not in unsettled))
    # What lies inside another object than the expected one is no further difference.
    others = tuple(place.path + "." for place in found if place.other_object)
    found = [place for place in found if not place.path.startswith(others)]
    return sorted(found, key=lambda item: (not item.changed, item.library))


def _missing_object(path: str, at: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The outermost object around `path` that the source run has and the resumed run lacks, or what contains it."""
    here, there = at["objects"], now["objects"]
    missing = [
        name for name in here if name not in there and (path == name or path.startswith((f"{name}.", f"{name}[")))
    ]
    if not missing:
        return None
    outermost = min(missing, key=len)
    while outermost.endswith("]"):  # An element is put in place with the container that holds it.
        outermost = outermost[: outermost.rindex("[")]
    return outermost


def lost_shadows(
    reference: Path, source: Path, resumed: Path, moment: str | int
) -> list[tuple[str, str, str | None, str | None]]:
    """Shadow copies of the weights that the resumed run does not have as the uninterrupted run has them.

    Returns:
        (path, component, expected, got) of the first differing entry of each shadow. Only shadows that change while
        the reference trains, and on which reference and source agree.
    """
    start, end, other = (read_census(*place) for place in ((reference, "start"), (reference, moment), (source, moment)))
    now = read_census(resumed, "end")
    found: list[tuple[str, str, str | None, str | None]] = []
    for shadow in end.get("shadows", ()):
        paths = [path for path in end["entries"] if path == shadow or path.startswith((f"{shadow}.", f"{shadow}["))]
        for path in paths:
            expected, got = end["entries"][path], now["entries"].get(path)
            settled = other["entries"].get(path) == expected and start["entries"].get(path) != expected
            if expected != got and settled:
                component = "callbacks" if path.startswith("callbacks.") else "hidden-state"
                found.append((path, component, expected, got))
                break
    return found


def _plain(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, float | int):
        return repr(value)
    text = str(value)
    return text[1:] if text.startswith("=") else text
