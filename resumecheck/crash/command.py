"""The options of `resumecheck crash`, and the check that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumecheck.errors import UsageError
from resumecheck.options import add_command_options, add_target, parse_steps, require_one
from resumecheck.verdict import EXIT_STATUS

if TYPE_CHECKING:
    from resumecheck.crash.experiment import Tell
    from resumecheck.crash.verdict import CrashVerdict

_DESCRIPTION = """\
Kill a save at every event in its files (create, write, sync, rename, remove): before it, and in the middle of a write,
with the file torn. After each death resume in a new process from what the target itself finds, and say what came back:
the same run, bit for bit, from the newest or an older checkpoint; an error; a run that started over; other weights.
TARGET names a factory `build(output_dir)` as for `resumecheck verify`. After -- stands a command instead, with {out}
for its output directory."""
_EXAMPLES = """\
examples:
  resumecheck crash train.py:build
  resumecheck crash train.py:build --at 4 --steps 6 --json crash.json
  resumecheck crash --at 4 --resume-option "--resume {checkpoint}" -- python train.py --out {out}
"""
_STATUSES = (
    f"exit status: {EXIT_STATUS['equivalent']} every resume ended as the reference without starting over, "
    f"{EXIT_STATUS['diverged']} one did not, 2 wrong usage, {EXIT_STATUS['nondeterministic']} nondeterministic (the "
    f"uninterrupted run, or the save, does not repeat itself), {EXIT_STATUS['error']} the target failed"
)


def add_parser(commands: Any, run: Callable[[argparse.Namespace], int], **options: Any) -> None:
    """Register the command, which `run` runs."""
    parser = commands.add_parser(
        "crash",
        help="kill a save at every event in its files, resume, say what came back",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n{_STATUSES}",
        **options,
    )
    parser.set_defaults(run=run)
    add_target(parser)
    parser.add_argument(
        "--at",
        metavar="STEP",
        help="the step whose save is killed (default: 2; for a command the second step with a checkpoint)",
    )
    parser.add_argument(
        "--steps", metavar="N", help="stop the runs after N optimizer steps (default: two after the save)"
    )
    parser.add_argument(
        "--limit", metavar="N", help="try at most N ways to die, spread over the save (default: all of them)"
    )
    add_command_options(parser, " (default: nothing, the command finds its checkpoint by itself)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome of every death as JSON")


def check(options: argparse.Namespace, tell: Tell) -> CrashVerdict:
    """What the options ask for; `tell` is called with the number of ways to die tried so far, and of all.

    Raises:
        UsageError: an option, the target or the command cannot be used.
    """
    require_one(options, "resumecheck crash")
    at, steps, limit = (_number(f"--{name}", getattr(options, name)) for name in ("at", "steps", "limit"))
    if options.command is not None:
        from resumecheck.crash.of_command import crash_command
        from resumecheck.runs.command import read_command

        if steps is not None:
            raise UsageError("--steps: a command is run to its end; give the command's own option instead")
        command = read_command(options.command, options.resume_option, options.checkpoint, by_itself=True)
        return crash_command(command, at=at, limit=limit, tell=tell)
    given = [name for name in ("resume_option", "checkpoint") if getattr(options, name) is not None]
    if given:
        raise UsageError(f"--{given[0].replace('_', '-')} is for a command that follows --, not for a target")
    from resumecheck.crash.experiment import crash

    return crash(options.target, steps=steps, at=at, limit=limit, tell=tell)


def _number(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_steps(text)
    except UsageError:
        raise UsageError(f"{option} {text}: expected a whole number from 1 on") from None
