"""`resumecheck repro REPORT`: from a failing check to a script that fails alone, and a text to file upstream.

The check of the report is made again here and watched for what it reads; the rest happens on a copy of the target.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumecheck.errors import UsageError
from resumecheck.verdict import EXIT_STATUS

if TYPE_CHECKING:
    from resumecheck.repro.bundle import Bundle
    from resumecheck.repro.failure import Failure
    from resumecheck.repro.issue import Story
    from resumecheck.repro.reduction import Tell
    from resumecheck.verdict import Verdict

NOT_REPRODUCED = 1
MOST_CHECKS = 20

_DESCRIPTION = """\
Turn a failing check into one Python script that shows the failure by itself, and a text to file with it. REPORT is what
`resumecheck verify --json FILE` wrote, or the directory of `--keep`. The check is made again, and then made smaller by
real checks: fewer steps, one early resume point, plain settings, a target with fewer options. A change is kept only
where the check still fails with the same root cause. The script holds the source of the target; it is run once in a
fresh process before the command ends."""
_EXAMPLES = """\
examples:
  resumecheck verify train.py:build --json verdict.json
  resumecheck repro verdict.json
  resumecheck repro verdict.json --out for-upstream --max-checks 40
  resumecheck repro verdict.json --target path/to/train.py:build
"""
_STATUSES = """\
exit status: 0 the script is written and was seen to fail, 1 there is nothing to reproduce (the report or this machine
says equivalent, or it fails otherwise here; no script is written), 2 wrong usage, or a target that cannot be put into a
script, 3 the uninterrupted run does not repeat itself here, 4 the target itself fails here"""


def add_parser(commands: Any, **options: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "repro",
        help="a failing check as one script, and a text to file upstream",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n{_STATUSES}",
        **options,
    )
    parser.set_defaults(run=run)
    parser.add_argument("report", metavar="REPORT", type=Path, help="a file of verify --json, or a directory of --keep")
    parser.add_argument("--target", metavar="TARGET", help="the target, where it is not as the report names it")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("resumecheck-repro"),
        help="a new or empty directory for repro.py and issue.md (default: resumecheck-repro)",
    )
    parser.add_argument(
        "--max-checks",
        metavar="N",
        default=str(MOST_CHECKS),
        help=f"how many checks may be made, the first among them (default: {MOST_CHECKS}); "
        "the script is run once more at the end",
    )


def run(options: argparse.Namespace) -> int:
    """The command line's side: options in, an exit status out."""
    from resumecheck.repro.failure import read_report

    if not options.max_checks.isdigit() or int(options.max_checks) < 2:
        raise UsageError(f"--max-checks {options.max_checks}: expected a whole number from 2 on")
    check_directory(options.out)
    report = read_report(options.report)
    return repro(report, options.target, options.out, int(options.max_checks), _tell)


def _tell(text: str) -> None:
    print(f"resumecheck: {text}", file=sys.stderr, flush=True)


def check_directory(out: Path) -> None:
    """Refuse a directory in which something is.

    Raises:
        UsageError: it is there and is not empty, or cannot be made.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is there already and is not an empty directory; give --out a new one")
        out.resolve().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the directory {out} cannot be made: {error.strerror}; give --out another") from error


def repro(report: Verdict, name: str | None, out: Path, limit: int, tell: Tell) -> int:
    """Make the check of a report smaller, and write `repro.py` and `issue.md` to `out`.

    Args:
        report: what a check found.
        name: the target, where it is not as the report names it.
        out: a new or empty directory.
        limit: how many checks may be made.
        tell: is told how it goes.

    Raises:
        UsageError: the report is not of a kind that can be reproduced, or the target cannot be put into a script.
    """
    from resumecheck.check import Workbench
    from resumecheck.repro.bundle import bundle_of
    from resumecheck.repro.failure import failure_of, recipe_of
    from resumecheck.repro.issue import Story
    from resumecheck.repro.reduction import Trials, outcome, reduce
    from resumecheck.repro.script import packages_of
    from resumecheck.repro.sources import read_sources
    from resumecheck.runs.target import find_target

    failure = _reproducible(report)
    if failure is None:
        print(f"nothing to reproduce: the report says that {report.target} is {report.verdict}")
        return NOT_REPRODUCED
    target = find_target(_target_name(report, name))
    whole = recipe_of(report)
    with tempfile.TemporaryDirectory(prefix="resumecheck-repro-") as temporary, Workbench() as workbench:
        workbench.bench.watch_files = True
        here = workbench.verify(target, **whole.settings)
        found = failure_of(here)
        tell(f"check 1 of at most {limit}: as in the report ({whole.words}): {outcome(here, found, failure)}")
        differences = _versions_that_differ(report, here)
        for package, (before, now) in differences.items():
            tell(f"the report was made with {package} {before}, here is {now}")
        if found != failure:
            return _not_here(failure, here, found)
        runs = list(workbench.bench.used.values())
        bundle = bundle_of(target, read_sources(runs))
        facts = next(each.facts for each in runs if each.spec.kind == "reference")
        workbench.bench.forget()
        directory = Path(temporary).resolve()
        bundle.write(directory)
        trials = Trials(workbench, bundle, directory, failure, limit, tell, made=1)
        recipe = reduce(trials, whole, here, facts)
        if recipe is None:
            raise UsageError(_no_copy(bundle, trials.last))
        story = Story(
            report=report,
            whole=whole,
            recipe=recipe,
            verdict=trials.verdict(recipe),
            failure=failure,
            bundle=bundle,
            packages=packages_of(bundle.files, here.versions),
            differences=differences,
            checks=trials.made,
            ended=trials.made < limit,
        )
    if not story.ended:
        tell(f"{limit} checks were made, which is the most; --max-checks allows more")
    return _write(story, out, tell)


def _write(story: Story, out: Path, tell: Tell) -> int:
    """Write script and issue, once the script was seen to fail."""
    from resumecheck.report.whole_file import write_whole
    from resumecheck.repro.bundle import make_smaller
    from resumecheck.repro.issue import issue, summary
    from resumecheck.repro.script import script

    smaller = make_smaller(story.bundle, story.recipe)
    text = script(smaller, story.recipe, story.failure, summary(story.failure, story.verdict), story.packages)
    tell("the script is run in a fresh process")
    status, output = run_alone(text)
    if status != NOT_REPRODUCED:
        last = output.strip().splitlines()[-1:] or ["it printed nothing"]
        raise UsageError(
            f"the script does not fail by itself: exit status {status}; its last line: {last[0][:300]}\n"
            f"No script is written. {_outside(story.bundle)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_whole(text, out / "repro.py", "--out")
    write_whole(issue(story, text), out / "issue.md", "--out")
    whole, recipe = story.whole, story.recipe
    made = f"{whole.steps} steps, resumed from {whole.at} -> {recipe.steps} steps, resumed from {recipe.at}"
    print(f"reproduced: {story.failure.words}")
    print(f"  reduced     {made}; {story.checks} checks")
    for name, value in (*recipe.options, *recipe.arguments):
        print(f"              {name}={value!r}")
    print(f"  script      {out / 'repro.py'}: run alone in a fresh process, it ended with exit status {status}")
    print(f"  issue text  {out / 'issue.md'}")
    sizes = [f"{name} ({len(content):,} bytes)" for name, content in smaller.files.items()]
    print(f"  it holds    {', '.join(sizes)}" if sizes else f"  it imports  {smaller.target}, which is installed")
    if story.bundle.outside:
        print(f"  not in it   {', '.join(story.bundle.outside)}")
    return EXIT_STATUS["equivalent"]


def run_alone(text: str) -> tuple[int, str]:
    """Run a script in a fresh process that imports nothing of this project; its exit status and its output."""
    from resumecheck.runs.opened import is_installed

    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = os.pathsep.join(entry for entry in path if entry and is_installed(Path(entry, "module")))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if kept:
        environment["PYTHONPATH"] = kept
    with tempfile.TemporaryDirectory(prefix="resumecheck-repro-") as directory:
        file = Path(directory, "repro.py")
        file.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(file)],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    return done.returncode, done.stdout


def _reproducible(report: Verdict) -> Failure | None:
    """What the report fails with; None where it does not.

    Raises:
        UsageError: a failure that has nothing to do with a resume, or that of a command.
    """
    from resumecheck.repro.failure import failure_of

    if report.equivalent:
        return None
    if report.verdict == "error":
        raise UsageError(
            f"the report says that {report.target} itself fails, uninterrupted: no resume is needed to see that.\n"
            "Mend that first; its exception is in the report."
        )
    if report.settings.command or report.target.rstrip().endswith("{out}") or " " in report.target.partition(":")[0]:
        raise UsageError(
            f"the report is about a command ({report.target}), which cannot be put into a script.\n"
            "Give its training loop as a target (docs/adapters.md), and check that."
        )
    failure = failure_of(report)
    if failure is None:
        raise UsageError("the report names no finding, so it is not known what a script is to show; check again")
    return failure


def _target_name(report: Verdict, name: str | None) -> str:
    """The target to check.

    Raises:
        UsageError: the report has a name that leads nowhere.
    """
    target = name or report.target
    place, _, factory = target.rpartition(":")
    if not place or not re.fullmatch(r"[A-Za-z_][\w.]*", factory):
        raise UsageError(
            f"the target of the report, {target!r}, has no name by which another process could import it.\n"
            "Give --target pkg.mod:build or path/file.py:build."
        )
    if name is None and place.endswith(".py") and not Path(place).exists():
        raise UsageError(
            f"the target of the report, {target}, is not there, seen from {Path.cwd()}.\n"
            "Go to where the check was made, or give --target path/file.py:build."
        )
    return target


def _not_here(failure: Failure, here: Verdict, found: Failure | None) -> int:
    """Say that the failure of the report is not what is found here."""
    print(
        f"not reproduced: the report says {failure.words}; here the check says {found.words if found else here.verdict}"
    )
    if here.error:
        print(f"  {here.error}")
    print("no script is written, since it would not fail")
    return NOT_REPRODUCED if here.verdict in ("equivalent", "diverged") else here.exit_status


def _versions_that_differ(report: Verdict, here: Verdict) -> dict[str, tuple[str, str]]:
    return {
        name: (report.versions[name], version)
        for name, version in here.versions.items()
        if name in report.versions and report.versions[name] != version
    }


def _no_copy(bundle: Bundle, last: str) -> str:
    return (
        f"a copy of the target's source does not fail as the target does: {last}\n"
        f"No script is written. {_outside(bundle)}"
    )


def _outside(bundle: Bundle) -> str:
    if bundle.outside:
        return f"The target reads files that a script cannot hold: {', '.join(bundle.outside[:3])}"
    return "It may depend on something outside of its Python files: data that native code reads, or the environment."
