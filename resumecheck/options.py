"""The options of a check and of a pytest run, once: command line, ini file, marker and fixture all read these tables.

Nothing here imports torch. Text becomes values here, and what is plainly wrong is refused before anything is started;
what only the target can tell (whether a resume point is inside its run) is refused by `check.verify`. `CHECK` is the
table of a check, `PLUGIN` the options of the pytest plugin; docs/plugin.md is tested against both.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from resumecheck.errors import UsageError

HORIZONS = ("end", "next")
INTERRUPTS = ("stop", "sigterm", "sigkill")
AT_WORDS = "every, epoch, K-per-epoch"

Kind = Literal["text", "flag", "list"]


def parse_steps(text: str | int) -> int:
    """A number of optimizer steps, at least 1.

    Raises:
        UsageError: the text is not such a number.
    """
    try:
        steps = int(text) if isinstance(text, str) else _whole(text)
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
    points: list[Any]
    if isinstance(text, str):
        points = [part.strip() for part in text.split(",") if part.strip()]
        if len(points) == 1 and not points[0].lstrip("-").isdigit():
            if points[0] in ("every", "epoch") or re.fullmatch(r"0*[1-9]\d*-per-epoch", points[0]):
                return points[0]
            raise UsageError(f"at: {text!r} is not known; give steps such as 3,7 or one of: {AT_WORDS}")
    elif isinstance(text, int):
        points = [text]
    else:
        try:
            points = list(text)
        except TypeError:
            raise UsageError(f"at: {text!r} is not a list of steps; give steps such as [3, 7], or {AT_WORDS}") from None
    if not points:
        raise UsageError(f"at: {text!r} names no resume point; give steps such as 3,7 or one of: {AT_WORDS}")
    try:
        return [int(point) if isinstance(point, str) else _whole(point) for point in points]
    except ValueError:
        raise UsageError(f"at: {text!r} is not a list of steps; give steps such as 3,7 or one of: {AT_WORDS}") from None


def parse_horizon(text: str) -> str:
    """`end` or `next`.

    Raises:
        UsageError: it is neither.
    """
    if text not in HORIZONS:
        raise UsageError(f"horizon: {text!r} is not known; give one of: {', '.join(HORIZONS)}")
    return text


def parse_tolerance_text(text: str) -> str:
    """The tolerance as it was written, if it can be read.

    Raises:
        UsageError: it is none of `bitwise`, `ulp:N`, `close:RTOL,ATOL` and `noise`.
    """
    if not isinstance(text, str):
        raise UsageError(f"tolerance: {text!r} is not text; give bitwise, noise, ulp:N or close:RTOL,ATOL")
    from resumecheck.compare.tolerance import parse_tolerance

    parse_tolerance(text)
    return text


def parse_interrupt(text: str) -> str:
    """`stop`, `sigterm` or `sigkill`.

    Raises:
        UsageError: it is none of them.
    """
    if text not in INTERRUPTS:
        raise UsageError(f"interrupt: {text!r} is not known; give one of: {', '.join(INTERRUPTS)}")
    return text


def parse_on_resume(given: Mapping[str, Any] | Sequence[str]) -> dict[str, str]:
    """Training arguments that resumed runs change, from a mapping or from `KEY=VALUE` texts.

    Raises:
        UsageError: it is neither, or a value is no text, number or truth value.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, list | tuple) and all(isinstance(text, str) and "=" in text[1:] for text in given):
        pairs = [(name, value) for name, _, value in (text.partition("=") for text in given)]
    else:
        raise UsageError(
            f"on_resume: {given!r} is not a mapping of training arguments; expected KEY=VALUE or a dict, for example "
            "{'dataloader_num_workers': 2}"
        )
    for name, value in pairs:
        if not isinstance(name, str) or not name or not isinstance(value, str | int | float):
            raise UsageError(
                f"on_resume: {name!r}: {value!r} cannot be given to a training argument; expected the name of the "
                "argument and a text, a number or a truth value"
            )
    return {name: str(value) for name, value in pairs}


def parse_flag(given: bool) -> bool:
    """A truth value, for `twice`.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(given, bool):
        raise UsageError(f"twice: {given!r} is not a truth value; give True or False")
    return given


def add_target(parser: argparse.ArgumentParser) -> None:
    """The argument that names a target, which is not given where a command follows `--`."""
    parser.add_argument(
        "target", metavar="TARGET", nargs="?", help="what is checked: pkg.module:build or path/to/file.py:build"
    )


def add_command_options(parser: argparse.ArgumentParser, without: str = "") -> None:
    """The options of a command that follows `--`; `without` says what holds where it is not told how to resume."""
    parser.add_argument(
        "--resume-option",
        metavar="WORDS",
        help="for a command: what a resumed run adds to it, for example '--resume {checkpoint}'; {step} and {out} too"
        f"{without}",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="for a command: what it saves in {out} after a step, with * the newest (default: checkpoint-{step})",
    )


def require_one(options: argparse.Namespace, program: str) -> None:
    """Either a target or a command.

    Raises:
        UsageError: neither is given, or both.
    """
    if (options.target is None) == (options.command is None):
        raise UsageError(
            f"the following arguments are required: TARGET, or -- and a command, not both (see {program} --help)"
        )


def _whole(number: Any) -> int:
    """A whole number that is no truth value."""
    if isinstance(number, bool) or not hasattr(type(number), "__index__"):
        raise ValueError
    return number.__index__()


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a check.

    Attributes:
        name: in Python (marker, fixture, `resumecheck.verify`), and in texts with `-` for `_`.
        metavar: what stands for its value in a help text.
        parse: how its text or value is read.
        help: what it does, and its default in parentheses.
        kind: `text`, `flag` (true where it is given), or `list` (may be given several times).
    """

    name: str
    metavar: str
    parse: Callable[[Any], Any]
    help: str
    kind: Kind = "text"


#: The options that every command line shares.
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
        parse_tolerance_text,
        "how far numbers may differ: bitwise, ulp:N (units in the last place), close:RTOL,ATOL, or noise, which is "
        "measured from the spread of several uninterrupted runs (default: bitwise)",
    ),
)

#: All options of a check: what a marker, a call of the fixture or the ini file may set.
CHECK: tuple[Option, ...] = (
    *SHARED,
    Option(
        "interrupt",
        "|".join(INTERRUPTS),
        parse_interrupt,
        "how the run is interrupted: its checkpoints are taken while it goes on, or it is killed (default: stop)",
    ),
    Option(
        "on_resume",
        "KEY=VALUE",
        parse_on_resume,
        "training argument that the resumed runs change, for example dataloader_num_workers=2 (default: none)",
        "list",
    ),
    Option(
        "twice",
        "",
        parse_flag,
        "interrupt each resumed run too, half way to its end, and resume it again (default: no)",
        "flag",
    ),
)

NAMES: tuple[str, ...] = tuple(option.name for option in CHECK)


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
    parsers = {option.name: option.parse for option in CHECK}
    read: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        try:
            read[name] = parsers[name](value)
        except (UsageError, TypeError, ValueError) as error:
            raise UsageError(f"{where}: {error}") from error
    return read


@dataclasses.dataclass(frozen=True)
class PluginOption:
    """An option of the pytest plugin.

    Attributes:
        flag: on the command line.
        ini: in the ini file.
        metavar, help, kind: as in `Option`.
        name: what a marker or a call of the fixture calls it; "" where they cannot set it.
    """

    flag: str
    ini: str
    metavar: str
    help: str
    kind: Kind = "text"
    name: str = ""

    @property
    def destination(self) -> str:
        """Where pytest keeps the value of the command line."""
        return self.flag.removeprefix("--").replace("-", "_")


#: Everything that `pytest --help` lists of this plugin.
PLUGIN: tuple[PluginOption, ...] = (
    PluginOption(
        "--resumecheck",
        "resumecheck",
        "",
        "run the tests that train, interrupt and resume models (default: no)",
        "flag",
    ),
    PluginOption(
        "--resumecheck-target",
        "resumecheck_targets",
        "TARGET",
        "collect one item for each resume point of TARGET (pkg.module:build or path/to/file.py:build) (default: none)",
        "list",
    ),
    *(
        PluginOption(
            f"--resumecheck-{option.name.replace('_', '-')}",
            f"resumecheck_{option.name}",
            option.metavar,
            option.help,
            option.kind,
            option.name,
        )
        for option in CHECK
    ),
    PluginOption(
        "--resumecheck-html",
        "resumecheck_html",
        "DIR_OR_FILE",
        "write reports as HTML: a page for each check into a directory, or all into one file that ends in .html "
        "(default: none)",
    ),
    PluginOption(
        "--resumecheck-cache",
        "resumecheck_cache",
        "DIR",
        "keep reference runs in DIR for other sessions; one is used where files, arguments, versions and environment "
        "are the same and the source run equals it bit for bit, and the report says so (default: none is kept)",
    ),
)
