"""Runs a user's command as it is, and reads what `hook/sitecustomize.py` has noted as a trajectory.

All runs of a command write to one and the same path, one after another, so that what is written in its files does not
tell them apart; afterwards the output is moved to the run's own directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resumecheck.errors import UsageError
from resumecheck.runs.spec import Fault
from resumecheck.trajectory import FORMAT, Micro, Row, Trajectory

_HOOK = Path(__file__).parent / "hook"


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that trains.

    Attributes:
        words: the command line, with `{out}` where its output directory stands.
        resume: further words for a resumed run, with `{checkpoint}`, `{step}` or `{out}`.
        checkpoint: where in the output directory the checkpoint of `{step}` lies; with `*` the newest that fits.
    """

    words: tuple[str, ...]
    resume: tuple[str, ...]
    checkpoint: str = "checkpoint-{step}"

    @property
    def name(self) -> str:
        """The command as one would type it."""
        return shlex.join(self.words).replace("'{out}'", "{out}")

    def place(self, out: Path, step: int) -> Path:
        """The checkpoint of a step, in an output directory as it is just after the step."""
        name = self.checkpoint.replace("{step}", str(step))
        fitting = sorted(out.glob(name), key=lambda path: path.stat().st_mtime_ns) if "*" in name else []
        return fitting[-1] if fitting else out / name

    def newest(self, out: Path) -> int | None:
        """The step whose checkpoint a user would resume from, None where there is none.

        Where the resume option names no checkpoint the command chooses by itself: that is step 0 here, as it is where
        the name of the checkpoint has no step in it.
        """
        if not any(place in word for word in self.resume for place in ("{checkpoint}", "{step}")):
            return 0
        before, numbered, after = self.checkpoint.partition("{step}")
        if not numbered:
            return 0 if self.place(out, 0).exists() else None
        pattern = re.compile(re.escape(str(out / before)) + r"(\d+)" + re.escape(after))
        found = (pattern.fullmatch(str(path)) for path in out.glob(f"{before}*{after}"))
        return max((int(match[1]) for match in found if match is not None), default=None)

    def told(self, out: Path, found: Path, step: int) -> set[str]:
        """What a resumed run alone is told of its checkpoint: a script may write that down."""
        place = out / self.place(found, step).relative_to(found)
        return {str(place), f"'{place.name}'"}

    def arguments(self, out: Path, step: int | None = None) -> list[str]:
        """The words of a run; of a resumed one where a step is given."""
        words = self.words if step is None else (*self.words, *self.resume)
        places = {"{out}": str(out)}
        if step is not None:
            places |= {"{checkpoint}": str(self.place(out, step)), "{step}": str(step)}
        return [_replaced(word, places) for word in words]


def read_command(
    words: Sequence[str], resume: str | None, checkpoint: str | None, *, by_itself: bool = False
) -> Command:
    """The command of a check.

    Args:
        words: the command line.
        resume: what a resumed run adds to it.
        checkpoint: where it saves.
        by_itself: whether the command may resume without being told to.

    Raises:
        UsageError: the output directory has no place in it, or it is not said how to resume.
    """
    if not words:
        raise UsageError("after -- a command is expected, for example: -- python train.py --output_dir {out}")
    if not any("{out}" in word for word in words):
        raise UsageError(
            "the command has no {out}: each run needs an output directory of its own.\n"
            "Write {out} where it stands, for example: -- python train.py --output_dir {out}"
        )
    if not resume and not by_itself:
        raise UsageError(
            "--resume-option is missing: it says what a resumed run adds to the command.\n"
            'For example --resume-option "--resume_from_checkpoint {checkpoint}"'
        )
    command = Command(tuple(words), tuple(shlex.split(resume or "")))
    return dataclasses.replace(command, checkpoint=checkpoint) if checkpoint else command


@dataclasses.dataclass(frozen=True)
class CommandRun:
    """A run of a command.

    Attributes:
        name: the name of the run.
        directory: where its output and its record are.
        status: its exit status.
        last_words: its last line of output.
        trajectory: what was noted of its steps, None where none was.
        samples: step -> a digest of each sample.
    """

    name: str
    directory: Path
    status: int
    last_words: str
    trajectory: Trajectory | None
    samples: dict[int, list[str]]

    @property
    def out(self) -> Path:
        """What it has written."""
        return self.directory / "out"

    @property
    def steps(self) -> int:
        """Optimizer steps that it made."""
        return len(self.trajectory.steps) if self.trajectory is not None else 0


def run_command(
    command: Command,
    root: Path,
    name: str,
    *,
    snapshots: Sequence[int] = (),
    kill: int | None = None,
    resume: int | None = None,
    start_from: Path | None = None,
    handed_out: int | None = None,
    fault: Fault | None = None,
) -> CommandRun:
    """Run the command to its end and read its record.

    Args:
        command: what to run.
        root: the working directory of the check.
        name: the name of the run.
        snapshots: steps after which the output directory is copied, to `STEP` in the record.
        kill: the step after which the process kills itself.
        resume: the step from whose checkpoint the run goes on.
        start_from: what the output directory holds at the start.
        handed_out: how many batches the loaders hand out before the first update; more were skipped before that.
        fault: the save that is watched, or killed.
    """
    out, directory = root / "out", root / name
    record = directory / "record"
    record.mkdir(parents=True)
    shutil.rmtree(out, ignore_errors=True)
    if start_from is not None:
        shutil.copytree(start_from, out, symlinks=True)
    else:
        out.mkdir()
    paths = [str(_HOOK), *(path for path in [os.environ.get("PYTHONPATH")] if path)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "RESUMECHECK_RECORD": str(record),
        "RESUMECHECK_OUT": str(out),
        "RESUMECHECK_SNAPSHOTS": ",".join(map(str, snapshots)),
        "RESUMECHECK_FROM": str(resume or 0),
        "RESUMECHECK_KILL": str(-1 if kill is None else kill),
        "RESUMECHECK_FAULT": json.dumps(dataclasses.asdict(fault)) if fault is not None else "",
    }
    with (directory / "output.log").open("wb") as log:
        try:
            process = subprocess.Popen(
                command.arguments(out, resume),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise UsageError(f"the command {command.words[0]!r} cannot be started: {error.strerror}") from error
        try:
            status = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    shutil.move(out, directory / "out")
    text = (directory / "output.log").read_text(encoding="utf-8", errors="replace").strip()
    trajectory, samples = _read(record, resume or 0, handed_out)
    return CommandRun(name, directory, status, text.splitlines()[-1][:300] if text else "", trajectory, samples)


def _replaced(word: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


def _read(record: Path, first: int, handed_out: int | None) -> tuple[Trajectory | None, dict[int, list[str]]]:
    """The rows of the one process that trained, as a trajectory, and the samples of each step.

    Raises:
        UsageError: several processes trained.
    """
    files = sorted(record.glob("rows-*.jsonl"))
    if len(files) > 1:
        raise UsageError(f"the command trains in {len(files)} processes; a command is checked where one process trains")
    noted: list[dict[str, Any]] = []
    for line in files[0].read_text(encoding="utf-8").splitlines() if files else ():
        with contextlib.suppress(ValueError):
            noted.append(json.loads(line))
    rows: dict[int, Row] = {}
    samples: dict[int, list[str]] = {}
    row = Row(step=first, start=True)
    for facts in noted:
        row.state = facts["state"]
        rows[row.step] = row
        if facts["step"] is None:
            break
        if row.start and handed_out is not None:
            facts["batches"] = facts["batches"][len(facts["batches"]) - handed_out :] if handed_out else []
        row = _row(facts)
        samples[row.step] = [sample for _, found in facts["batches"] for sample in found or ()]
    else:
        if noted:
            rows[row.step] = row  # The process was killed: what its last update has made is not known.
    return (Trajectory(record, {"format": FORMAT}, rows, first) if rows else None), samples


def _row(facts: dict[str, Any]) -> Row:
    """A step; a loader may have handed out other batches than went backward."""
    batches, losses = facts["batches"], facts["losses"]
    micro = [
        Micro(
            batch=batches[index][0] if index < len(batches) else "",
            loss=losses[index] if index < len(losses) else None,
        )
        for index in range(max(len(batches), len(losses)))
    ]
    names = ("step", "streams", "gradients", "lr", "epoch_streams")
    return Row(micro=micro, **{name: facts[name] for name in names})
