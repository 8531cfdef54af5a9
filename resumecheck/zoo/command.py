"""`resumecheck zoo`: the check proves itself on known ways to lose state."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from resumecheck.verdict import EXIT_STATUS

#: A workbench keeps the records of its runs until it is closed: about 40 MB for each specimen.
SPECIMENS_A_WORKBENCH = 20

_DESCRIPTION = """\
Check every specimen of the zoo: small training set-ups, each of which loses one state in a way that is known, most of
them from public bug reports, and for each a clean twin that loses nothing. The table says for each specimen whether the
mutant is detected, which component is blamed first, whether that is confirmed, and whether the twin is left alone."""
_EXAMPLES = """\
examples:
  resumecheck zoo
  resumecheck zoo lr-scheduler moments_rounded_to_bf16 --json zoo.json
"""


def add_parser(commands: Any, **options: Any) -> None:
    """Register the command."""
    zoo = commands.add_parser(
        "zoo",
        help="let the check prove itself on known ways to lose state",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\nexit status: 0 where every mutant is detected and no twin blamed, else 1",
        **options,
    )
    zoo.set_defaults(run=run_zoo)
    zoo.add_argument(
        "names", metavar="NAME", nargs="*", help="a specimen, or a component for all that lose it (default: all)"
    )
    zoo.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")


def run_zoo(options: argparse.Namespace) -> int:
    """Options in, an exit status out."""
    from resumecheck.report import json_file
    from resumecheck.zoo import run

    specimens = run.choose(options.names)
    if options.json is not None:
        json_file.check_writable(options.json)

    from rich.console import Console

    from resumecheck.check import Workbench
    from resumecheck.report import terminal

    results: list[run.Result] = []
    for start in range(0, len(specimens), SPECIMENS_A_WORKBENCH):
        with Workbench() as workbench:
            for result in run.run(specimens[start : start + SPECIMENS_A_WORKBENCH], workbench):
                results.append(result)
                told = f"{len(results)} of {len(specimens)}: {run.line(result)}"
                print(f"resumecheck: {told}", file=sys.stderr, flush=True)
    report = run.Report(tuple(results))
    if options.json is not None:
        json_file.write(report, options.json)
    console = Console()
    if not console.is_terminal:
        console = Console(width=terminal.WIDTH + 60)
    console.print(run.table(report.results))
    for remark in run.remarks(report.results):
        console.print(f"\n{remark}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\n{report.summary()}", markup=False, highlight=False, soft_wrap=True)
    return EXIT_STATUS["equivalent"] if report.well_judged else EXIT_STATUS["diverged"]
