"""The options of a check, once: the command line and the pytest plugin both register this table.

Nothing here imports torch. What a value means is decided by `check.verify`; here text becomes numbers, and what is
plainly wrong is refused before anything is started.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resumecheck.errors import UsageError

HORIZONS = ("end", "next")
INTERRUPTS = ("stop", "sigterm", "sigkill")


def parse_steps(text: str | int) -> int:
    """A number of optimizer steps, at least 1.

    Raises:
        UsageError: the text is not such a number.
    """
    try:
        steps = int(text)
    except ValueError:
        steps = 0
    if steps < 1:
        raise UsageError(f"steps: {text!r} is not a number of optimizer steps; give a whole number from 1 on")
    return steps


def parse_at(text: str | int | Sequence[int]) -> list[int] | str:
    """The resume points: `3,7` becomes `[3, 7]`, the words (`every`, `epoch`, `2-per-epoch`) stay words.

    Raises:
        UsageError: the list is empty or holds something that is not a number.
    """
    if isinstance(text, int):
        return [text]
    if not isinstance(text, str):
        return [int(point) for point in text]
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"at: {text!r} names no resume point; give steps such as 3,7 or one of: {AT_WORDS}")
    if len(parts) == 1 and not parts[0].lstrip("-").isdigit():
        return parts[0]
    try:
        return [int(part) for part in parts]
    except ValueError as error:
        raise UsageError(
            f"at: {text!r} is not a list of steps; give steps such as 3,7 or one of: {AT_WORDS}"
        ) from error


def parse_horizon(text: str) -> str:
    """`end` or `next`.

    Raises:
        UsageError: it is neither.
    """
    if text not in HORIZONS:
        raise UsageError(f"horizon: {text!r} is not known; give one of: {', '.join(HORIZONS)}")
    return text


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a check: its name in Python, how its text is read, and its help."""

    name: str
    metavar: str
    parse: Callable[[Any], Any]
    help: str


AT_WORDS = "every, epoch, K-per-epoch"

#: The options that the command line, the ini file and the marker share.
SHARED: tuple[Option, ...] = (
    Option(
        "steps",
        "N",
        parse_steps,
        "stop the runs after N optimizer steps; the target's own schedule is not changed "
        "(default: its own length up to 200 steps, else 20)",
    ),
    Option(
        "at",
        "STEPS",
        parse_at,
        f"resume points: steps such as 3,7 or one of {AT_WORDS} "
        "(default: the middle of the first epoch, an epoch boundary, the middle of a later epoch)",
    ),
    Option(
        "horizon",
        "|".join(HORIZONS),
        parse_horizon,
        "how far a resumed run goes: to the end of the run, or to the next resume point, where its whole training "
        "state is compared (default: end)",
    ),
    Option(
        "tolerance",
        "T",
        str,
        "how far numbers may differ: bitwise, ulp:N (units in the last place), close:RTOL,ATOL, or noise, which is "
        "measured from the spread of several uninterrupted runs (default: bitwise)",
    ),
)

#: What a marker or a call of the fixture may set: the shared options and those that make sense only there.
NAMES: tuple[str, ...] = (*(option.name for option in SHARED), "interrupt", "on_resume", "twice")


def read_options(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options that are set (not None), read from text where they are text.

    Args:
        values: option name -> value.
        where: where they were written, for the message.

    Raises:
        UsageError: a name is not an option, or a value cannot be read.
    """
    unknown = sorted(set(values) - set(NAMES))
    if unknown:
        raise UsageError(f"{where}: {unknown[0]!r} is not an option of a check; known are: {', '.join(NAMES)}")
    parsers = {option.name: option.parse for option in SHARED}
    read: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        try:
            read[name] = parsers[name](value) if name in parsers else value
        except (UsageError, TypeError, ValueError) as error:
            raise UsageError(f"{where}: {error}") from error
    return read
