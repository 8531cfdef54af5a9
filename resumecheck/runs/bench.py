"""Makes the runs of an experiment, each once, in one working directory.

In flow a target and what a run should do, out flows a `Run`: its spec, its end and its trajectory. A run that is asked
for twice with the same arguments is made once.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import shutil
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from resumecheck.errors import ResumecheckError, TargetError, UsageError
from resumecheck.runs.pool import Pool, Progress
from resumecheck.runs.spec import Fault, Kind, RunEnd, RunSpec, Transplant
from resumecheck.runs.target import Target
from resumecheck.trajectory import Trajectory, read_trajectory

#: Hash seeds of the two preloaded servers. The reference runs under one, the source run under the other, and a resumed
#: run under another than the run that wrote its checkpoint.
REFERENCE_SEED, SOURCE_SEED = 1, 2


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has been made."""

    name: str
    spec: RunSpec
    end: RunEnd

    @property
    def directory(self) -> Path:
        """Where its record is."""
        return Path(self.spec.directory)

    @cached_property
    def trajectory(self) -> Trajectory:
        """Its record."""
        return read_trajectory(self.directory)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What `run.json` says of it, also where it made no step."""
        return json.loads((self.directory / "run.json").read_text(encoding="utf-8"))

    @property
    def complete(self) -> bool:
        """Whether it ended by itself or where it was asked to."""
        return self.end.status in ("finished", "stopped")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What the runs of one check have in common.

    Attributes:
        target: what is trained.
        steps: the step after which runs stop, None for the target's own end.
        points: the resume points.
        on_resume: arguments to change in resumed runs.
        interrupt: `stop`, or the signal by which the source run is killed after each checkpoint.
        keep_end: whether runs store the tensors that they end with, for a comparison within a tolerance.
        again: points of second resumes.
    """

    target: Target
    steps: int | None
    points: tuple[int, ...]
    on_resume: tuple[tuple[str, str], ...] = ()
    interrupt: str = "stop"
    keep_end: bool = False
    again: tuple[int, ...] = ()

    @property
    def moments(self) -> tuple[int, ...]:
        """Where the runs are looked at closely: the resume points, and the points of second resumes."""
        return tuple(sorted({*self.points, *self.again}))


class Bench:
    """Owns the servers, the working directory and the runs made so far."""

    def __init__(self, *, keep: Path | None = None, jobs: int | None = None, progress: Progress | None = None) -> None:
        self.keep = keep
        if keep is not None:
            if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
                raise UsageError(f"{keep} is there already and is not an empty directory; give --keep a new one")
            try:
                keep.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"the directory {keep} cannot be made: {error.strerror}") from error
        self.watch_files = False
        self.root = keep.resolve() if keep is not None else Path(tempfile.mkdtemp(prefix="resumecheck-"))
        self.pool = Pool(jobs)
        self.progress = progress
        self.threads = ThreadPoolExecutor(max_workers=max(2, self.pool.jobs), thread_name_prefix="resumecheck")
        self.used: dict[str, Run] = {}
        self._numbers = itertools.count(1)
        self._made: dict[Any, Future[Run]] = {}
        self._lock = threading.Lock()

    # --- the runs of the experiment ---------------------------------------------------------------------------------

    def plan(self, target: Target) -> Run:
        """Build the target and start it, to learn its length."""
        return self._once("plan", target, "plan")

    def reference(self, experiment: Experiment, *, seed: int = REFERENCE_SEED, repeat: int = 0, **captures: Any) -> Run:
        """The uninterrupted run, without any checkpoint."""
        name = "reference" if not repeat else f"reference again ({repeat})"
        return self._once(
            name,
            experiment.target,
            "reference",
            key=repeat,
            stop=experiment.steps,
            census_at=experiment.moments,
            live_at_end=experiment.keep_end,
            on_resume=experiment.on_resume,
            hash_seed=seed,
            **captures,
        )

    def source(self, experiment: Experiment, *, repeat: int = 0, **captures: Any) -> Run:
        """The same run, which also writes a checkpoint at each resume point; with captures it is a donor."""
        name = "source" if not repeat and not captures else "donor" if captures else f"source again ({repeat})"
        return self._once(
            name,
            experiment.target,
            "source",
            key=repeat,
            stop=experiment.steps,
            save_at=experiment.points,
            census_at=experiment.moments,
            live_at_end=experiment.keep_end,
            hash_seed=SOURCE_SEED,
            **captures,
        )

    def resumed(
        self,
        experiment: Experiment,
        source: Run,
        point: int,
        *,
        stop: int | None,
        label: str = "",
        **options: Any,
    ) -> Run:
        """A fresh process that loads the checkpoint of `point` and trains on."""
        if experiment.interrupt != "stop":
            source = self._interrupted(experiment, point)
        name = f"resumed from {point}" + (f" {label}" if label else "")
        return self._once(
            name,
            experiment.target,
            "resumed",
            key=(source.spec.directory, label),
            stop=stop,
            resume_step=point,
            on_resume=experiment.on_resume,
            live_at_end=experiment.keep_end,
            hash_seed=REFERENCE_SEED if source.spec.hash_seed == SOURCE_SEED else SOURCE_SEED,
            start_from=source.directory / "snapshots" / str(point),
            **options,
        )

    def _interrupted(self, experiment: Experiment, point: int) -> Run:
        """A source run that is killed right after its checkpoint."""
        return self._once(
            f"source killed at {point}",
            experiment.target,
            "source",
            stop=experiment.steps,
            save_at=(point,),
            kill=(point, experiment.interrupt.upper()),
            hash_seed=SOURCE_SEED,
        )

    def dying(self, experiment: Experiment, fault: Fault) -> Run:
        """A source run that dies in a save, or lists the events of that save."""
        way = f"{'in' if fault.torn else 'before'} event {fault.event}"
        return self._once(
            f"killed {way}" if fault.event is not None else "watched",
            experiment.target,
            "source",
            stop=experiment.steps,
            save_at=experiment.points,
            fault=fault,
            hash_seed=SOURCE_SEED,
        )

    def after_death(self, experiment: Experiment, dead: Run) -> Run:
        """A fresh process that resumes from what the target finds in the output directory of a run that has died."""
        return self._once(
            f"resumed after {dead.name}",
            experiment.target,
            "resumed",
            key=dead.spec.directory,
            stop=experiment.steps,
            save_at=experiment.points,
            resume_newest=True,
            hash_seed=SOURCE_SEED,
            start_from=Path(dead.spec.output_dir),
        )

    def steps_used(self) -> int:
        """Optimizer steps of all runs that were asked for since `used` was emptied, made then or made before."""
        return sum(run.end.steps for run in self.used.values())

    # --- making ------------------------------------------------------------------------------------------------------

    def _once(
        self, name: str, target: Target, kind: Kind, *, key: Any = None, start_from: Path | None = None, **options: Any
    ) -> Run:
        """Make a run, or give back the one that was made with the same arguments."""
        identity = (target.identity, kind, key, _frozen(options))
        with self._lock:
            future = self._made.get(identity)
            mine = future is None
            if future is None:
                future = self._made[identity] = Future()
        if mine:
            try:
                future.set_result(self._make(name, target, kind, start_from, options))
            except BaseException as error:
                future.set_exception(error)
        run = future.result()
        with self._lock:
            self.used[run.spec.directory] = run
        return run

    def _make(self, name: str, target: Target, kind: Kind, start_from: Path | None, options: dict[str, Any]) -> Run:
        run = self._attempt(name, target, kind, start_from, options)
        if run.end.status == "died" and run.spec.kill is None and run.spec.fault is None:
            # A process that something else has killed says nothing about the target: only twice counts.
            run = self._attempt(name, target, kind, start_from, options)
        if run.end.status == "usage":
            raise UsageError(run.end.error)
        return run

    def _attempt(self, name: str, target: Target, kind: Kind, start_from: Path | None, options: dict[str, Any]) -> Run:
        with self._lock:
            directory = self.root / f"{next(self._numbers):03d}-{name.replace(' ', '-')}"
        output_dir = directory / "output"
        try:
            directory.mkdir(parents=True)
            if start_from is not None:
                shutil.copytree(start_from, output_dir, symlinks=True)
        except (OSError, shutil.Error) as error:
            raise ResumecheckError(f"{name}: {directory} cannot be written: {error}\n{_MORE_SPACE}") from error
        spec = RunSpec(
            target=target,
            kind=kind,
            directory=str(directory),
            output_dir=str(output_dir),
            watch_files=self.watch_files,
            **options,
        )
        end = self.pool.run(spec, name, self.progress if kind != "plan" else None)
        if end.status in ("failed", "died") and _is_full(directory, end.error):
            free = shutil.disk_usage(directory).free
            raise ResumecheckError(
                f"the disk ran full in the {name} run: {free / 2**20:.1f} MiB are left at {self.root}\n{_MORE_SPACE}"
            )
        if kind in ("resumed", "reference", "plan"):
            shutil.rmtree(output_dir, ignore_errors=True)
        return Run(name, spec, end)

    def forget(self) -> None:
        """Remove the records of the runs made so far; the servers stay."""
        self.used.clear()
        self._made.clear()
        for directory in self.root.iterdir():
            shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        """End what still runs, and remove the working directory unless it is to be kept."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.pool.close()
        self.threads.shutdown(wait=True)  # Their runs are dead; what they still copy must not outlive the directory.
        if self.keep is None:
            shutil.rmtree(self.root, ignore_errors=True)
        else:
            for snapshots in self.root.glob("*/snapshots"):
                shutil.rmtree(snapshots, ignore_errors=True)


_MORE_SPACE = "Free some space, or give --keep (or TMPDIR) a directory on a larger disk."


def _is_full(directory: Path, error: str) -> bool:
    """Whether a run failed because the disk was full: libraries word it differently, or die of it."""
    return os.strerror(errno.ENOSPC) in error or shutil.disk_usage(directory).free < _LITTLE


#: With fewer bytes left no checkpoint can be written.
_LITTLE = 64 * 1024


def require_complete(run: Run) -> Run:
    """The run, if the target got through it.

    Raises:
        TargetError: the target failed by itself.
    """
    if not run.complete:
        where = f"\n  at {run.end.where}" if run.end.where else ""
        raise TargetError(f"the {run.name} run failed after {run.end.steps} steps: {run.end.error}{where}")
    return run


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, Transplant):
        return dataclasses.astuple(value)
    return tuple(value) if isinstance(value, list) else value
