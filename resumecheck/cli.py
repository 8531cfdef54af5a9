"""The command line: options in, a verdict printed and written, an exit status out.

`--help` imports neither torch nor transformers; each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from resumecheck import __version__
from resumecheck.crash import command as crash
from resumecheck.errors import ResumecheckError, TargetError, UsageError
from resumecheck.options import CHECK, add_command_options, add_target, read_options, require_one
from resumecheck.repro import command as repro
from resumecheck.verdict import EXIT_STATUS, Verdict
from resumecheck.zoo import command as zoo

USAGE_STATUS = 2
DEFECT_STATUS = 70  # EX_SOFTWARE of sysexits.h: what fails inside resumecheck must not look like a verdict
INTERRUPTED_STATUS, TERMINATED_STATUS = 130, 143

#: Commands of the embedding trainer, which read their own options: name -> (help, module).
TRAINER_COMMANDS = {
    "train": ("fine-tune a text embedding model; its resume is exact", "resumecheck.embedding.train"),
    "evaluate": ("nDCG, MRR and recall of an embedding model", "resumecheck.embedding.evaluate"),
    "mine": ("hard negatives, from what an embedding model ranks next to a query", "resumecheck.embedding.mine"),
    "score": ("add a reranker's scores to training data, for distillation", "resumecheck.embedding.score"),
    "split": ("sort training data into files by the length of its texts", "resumecheck.embedding.split"),
    "export": ("write an embedding model for sentence-transformers", "resumecheck.embedding.export"),
}

_DESCRIPTION = "Is a resumed training run still the same run? Evidence, and the name of the state that was lost."
_STATUSES = (
    f"exit status: {EXIT_STATUS['equivalent']} equivalent, {EXIT_STATUS['diverged']} diverged, {USAGE_STATUS} wrong "
    f"usage, {EXIT_STATUS['nondeterministic']} nondeterministic (the uninterrupted run does not repeat itself), "
    f"{EXIT_STATUS['error']} the target failed"
)
_VERIFY_DESCRIPTION = """\
Train TARGET without an interruption, train it again with a checkpoint at each resume point, resume from each
checkpoint in a new process, and compare the runs step by step: training state, samples, batches, random streams,
losses, gradients and learning rates. TARGET names a factory `build(output_dir)` that returns a transformers.Trainer, or
a loop of your own: pkg.module:build, or path/to/file.py:build. After -- stands a command instead, with {out} for its
output directory: any script that trains with torch, unchanged."""
_VERIFY_EXAMPLES = """\
examples:
  resumecheck verify train.py:build
  resumecheck verify train.py:build --steps 12 --at 4,9 --json verdict.json
  resumecheck verify my_project.training:build --at every --horizon next
  resumecheck verify --at 4,9 --resume-option "--resume {checkpoint}" -- python train.py --out {out}
"""
_EXPLAIN_DESCRIPTION = """\
Say what a finding means, how it comes about and what to do, with code that loses the state and the same code mended.
Without a name, list all findings. docs/findings.md has the same text."""
_EXPLAIN_EXAMPLES = """\
examples:
  resumecheck explain
  resumecheck explain RC204
  resumecheck explain data-content
"""
_DOCTOR_DESCRIPTION = """\
Look at a checkpoint, or at all checkpoints of an output directory: what wrote it, which file holds what, what is
missing or damaged, whether step counts agree, what a resume would lose, and how to resume. Knows transformers,
sentence-transformers, FlagEmbedding, accelerate, DeepSpeed, torch DCP, Lightning and `resumecheck train`. Nothing is
unpickled, and no code in a checkpoint is run."""
_DOCTOR_EXAMPLES = """\
examples:
  resumecheck doctor out
  resumecheck doctor out/checkpoint-500 --json doctor.json
"""
_DIFF_DESCRIPTION = """\
Where two recorded runs part (directories that `verify --keep` left), or in what two checkpoints differ: the first
difference in causal order with step, rung, component, name, both values, and how far they are apart."""
_DIFF_EXAMPLES = """\
examples:
  resumecheck diff kept/001-reference kept/003-resumed-from-4
  resumecheck diff first/checkpoint-500 second/checkpoint-500 --json diff.json
  resumecheck diff first/model.safetensors second/model.safetensors --tolerance close:1e-5,1e-8
"""
_AUDIT_DESCRIPTION = """\
Say of each resume of a run in production whether it was exact. RUN_DIR is what `resumecheck.Recorder(RUN_DIR)` or
`resumecheck train --record RUN_DIR` recorded: the state that a resumed run starts from is compared with the state that
the interrupted run saved, and steps that both have executed are compared bit for bit. Nothing is trained."""
_AUDIT_EXAMPLES = """\
examples:
  resumecheck audit runs/a
  resumecheck audit runs/a --json audit.json
"""
_AUDIT_STATUSES = (
    f"exit status: 0 no resume differs, 1 one differs or started over, {USAGE_STATUS} wrong usage or a damaged record, "
    "3 one cannot be checked and none differs"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in TRAINER_COMMANDS:
            return _run_trainer_command(arguments[0], arguments[1:])
        command = None
        if arguments[:1] in (["verify"], ["crash"]) and "--" in arguments:
            end = arguments.index("--")
            arguments, command = arguments[:end], arguments[end + 1 :]
        return _run_check(_parser().parse_args(arguments, argparse.Namespace(command=command)))
    except ResumecheckError as error:
        print(f"resumecheck: {error}", file=sys.stderr)
        return EXIT_STATUS["error"] if isinstance(error, TargetError) else USAGE_STATUS
    except KeyboardInterrupt as interruption:
        print("resumecheck: interrupted; every run that was started has been ended", file=sys.stderr)
        return TERMINATED_STATUS if isinstance(interruption, _Terminated) else INTERRUPTED_STATUS


def _run_trainer_command(command: str, arguments: list[str]) -> int:
    try:
        module = importlib.import_module(TRAINER_COMMANDS[command][1])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("resumecheck"):
            raise
        raise UsageError(
            f"{command} needs the package {error.name!r}, which is not installed: pip install 'resumecheck[embedding]'"
        ) from error
    status = int(module.main(arguments) or 0)
    importlib.import_module("resumecheck.embedding.processes").leave(status)
    return status


def _run_check(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return options.run(options)
    except (ResumecheckError, KeyboardInterrupt):
        raise
    except Exception:
        # Python's own exit status for an uncaught exception is 1, which here means `diverged`.
        traceback.print_exc()
        print("resumecheck: this is a defect of resumecheck, not of the target; please report it", file=sys.stderr)
        return DEFECT_STATUS


def _verify(options: argparse.Namespace) -> int:
    from resumecheck.report import github, json_file, page
    from resumecheck.report.checked import Checked

    require_one(options, "resumecheck verify")
    given = {option.name: getattr(options, option.name) for option in CHECK}
    settings = read_options({**given, "on_resume": _pairs(options.on_resume)}, "resumecheck verify")
    if options.json is not None:
        json_file.check_writable(options.json)
    if options.html is not None:
        page.require(options.html, "--html")

    from rich.console import Console

    from resumecheck.report import progress

    with progress.progress_display(Console(stderr=True)) as show:
        from resumecheck.check import Workbench

        evidence = None
        try:
            if options.command is not None:
                verdict = _verify_command(options, settings, show)
            else:
                with Workbench(keep=options.keep, progress=show) as workbench:
                    verdict = workbench.verify(options.target, **settings)
                    evidence = workbench.evidence() if options.html is not None else None
        except KeyboardInterrupt:
            if options.keep is not None:
                print(f"resumecheck: what was recorded until now is in {options.keep}", file=sys.stderr)
            raise
    for file in (options.json, options.keep and options.keep / "verdict.json"):
        if file:
            json_file.write(verdict, file)
    _print(verdict, "terminal")
    checked = Checked(verdict, evidence)
    if options.html is not None:
        page.write([checked], options.html, "--html")
    print("".join(f"{line}\n" for line in github.annotations([checked])), end="")
    github.append_summary([checked])
    return verdict.exit_status


def _verify_command(options: argparse.Namespace, settings: dict[str, Any], show: Any) -> Verdict:
    """The check of a command that follows `--`."""
    from resumecheck.check_command import verify_command
    from resumecheck.runs.command import read_command

    command = read_command(options.command, options.resume_option, options.checkpoint)
    known = {name: settings.pop(name) for name in ("at", "interrupt") if name in settings}
    if settings.pop("tolerance", "bitwise") != "bitwise" or settings:
        name = next(iter(settings), "tolerance").replace("_", "-")
        raise UsageError(
            f"--{name}: a command is checked as it is, to its end and bit for bit;\n"
            "give the command's own options instead"
        )
    return verify_command(command, keep=options.keep, progress=show, **known)


def _answer(options: argparse.Namespace, text: str, ask: Callable[[], Any]) -> int:
    """Ask, write the answer as JSON if it is wanted, and print it by `resumecheck.report.TEXT`."""
    from resumecheck.report import json_file

    if options.json is not None:
        json_file.check_writable(options.json)
    answer = ask()
    if options.json is not None:
        json_file.write(answer, options.json)
    _print(answer, text)
    return int(answer.exit_status)


def _print(answer: Any, text: str) -> None:
    """Print an answer by `resumecheck.report.TEXT`; not to a terminal, a line may be as wide as that text needs."""
    from rich.console import Console

    report = importlib.import_module(f"resumecheck.report.{text}")
    console = Console()
    report.render(answer, console if console.is_terminal else Console(width=report.WIDTH + 20))


def _crash(options: argparse.Namespace) -> int:
    def check() -> Any:
        from rich.console import Console

        from resumecheck.report import progress

        with progress.progress_display(Console(stderr=True), unit="way to die") as show:
            return crash.check(options, lambda done, total: show("killed and resumed", done, total))

    return _answer(options, "crash_text", check)


def _doctor(options: argparse.Namespace) -> int:
    from resumecheck.checkpoints.doctor import doctor

    return _answer(options, "doctor_text", lambda: doctor(options.path))


def _diff(options: argparse.Namespace) -> int:
    from resumecheck.comparison import diff

    return _answer(options, "diff_text", lambda: diff(options.expected, options.got, tolerance=options.tolerance))


def _audit(options: argparse.Namespace) -> int:
    from resumecheck.production.audit import audit

    return _answer(options, "audit_text", lambda: audit(options.record))


def _explain(options: argparse.Namespace) -> int:
    from resumecheck.report import findings_page

    kind = findings_page.find(options.name) if options.name is not None else None
    try:
        print(findings_page.listing() if kind is None else findings_page.as_text(kind), flush=True)
    except BrokenPipeError:  # `| head`; what Python flushes at its exit must not meet the closed pipe again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


class _Terminated(KeyboardInterrupt):
    """SIGTERM ends a check like Ctrl-C does: its runs are ended and its working directory is removed."""


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated


def _pairs(texts: Sequence[str] | None) -> dict[str, str] | None:
    """`KEY=VALUE` texts as a mapping, None where there are none."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UsageError(f"--on-resume {text}: expected KEY=VALUE, for example dataloader_num_workers=2")
        pairs[key] = value
    return pairs or None


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with the status of wrong usage."""
        self.exit(USAGE_STATUS, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    raw: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = _Parser(prog="resumecheck", description=_DESCRIPTION, epilog=_STATUSES, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"resumecheck {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    verify = commands.add_parser(
        "verify",
        help="check that a training run survives an interruption",
        description=_VERIFY_DESCRIPTION,
        epilog=f"{_VERIFY_EXAMPLES}\n{_STATUSES}",
        **raw,
    )
    verify.set_defaults(run=_verify)
    add_target(verify)
    for option in CHECK:
        form: dict[str, Any] = {"action": "store_true", "default": None}
        if option.kind != "flag":
            form = {"metavar": option.metavar, "action": "append" if option.kind == "list" else "store"}
        verify.add_argument(f"--{option.name.replace('_', '-')}", help=option.help, **form)
    add_command_options(verify)
    verify.add_argument("--json", type=Path, metavar="FILE", help="write the verdict as JSON, whatever it is")
    verify.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write a report as one HTML file that needs no network, whatever it says",
    )
    verify.add_argument("--keep", type=Path, metavar="DIR", help="keep the recorded runs and checkpoints in DIR")

    crash.add_parser(commands, _crash, **raw)
    zoo.add_parser(commands, **raw)
    doctor = commands.add_parser(
        "doctor",
        help="what is in a checkpoint, what is missing, what a resume would lose",
        description=_DOCTOR_DESCRIPTION,
        epilog=f"{_DOCTOR_EXAMPLES}\nexit status: 0 whole, 1 something missing or damaged, {USAGE_STATUS} wrong usage",
        **raw,
    )
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("path", metavar="PATH", help="a checkpoint, or an output directory of checkpoints")
    doctor.add_argument("--json", type=Path, metavar="FILE", help="write the diagnosis as JSON")

    diff = commands.add_parser(
        "diff",
        help="where two recorded runs, or two checkpoints, part",
        description=_DIFF_DESCRIPTION,
        epilog=f"{_DIFF_EXAMPLES}\nexit status: 0 equal, 1 different, {USAGE_STATUS} wrong usage",
        **raw,
    )
    diff.set_defaults(run=_diff)
    diff.add_argument("expected", metavar="A", help="a recorded run, or a checkpoint")
    diff.add_argument("got", metavar="B", help="another of the same kind")
    diff.add_argument("--tolerance", metavar="T", default="bitwise", help="bitwise (default), ulp:N or close:RTOL,ATOL")
    diff.add_argument("--json", type=Path, metavar="FILE", help="write the comparison as JSON")

    audit = commands.add_parser(
        "audit",
        help="was each resume of a recorded production run exact?",
        description=_AUDIT_DESCRIPTION,
        epilog=f"{_AUDIT_EXAMPLES}\n{_AUDIT_STATUSES}",
        **raw,
    )
    audit.set_defaults(run=_audit)
    audit.add_argument("record", metavar="RUN_DIR", help="the directory that was given to Recorder, or to --record")
    audit.add_argument("--json", type=Path, metavar="FILE", help="write the audit as JSON")

    explain = commands.add_parser(
        "explain",
        help="what a finding means, how it comes about, and the cure",
        description=_EXPLAIN_DESCRIPTION,
        epilog=_EXPLAIN_EXAMPLES,
        **raw,
    )
    explain.set_defaults(run=_explain)
    explain.add_argument("name", metavar="CODE", nargs="?", help="a code or a component (default: list all)")

    repro.add_parser(commands, **raw)
    for name, (summary, _module) in TRAINER_COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser
