"""Executes one `RunSpec` in this process, which is fresh and is used for nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import platform
import random
import re
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resumecheck.adapters.contract import Adapter, Length, Saving, adapter_for
from resumecheck.adapters.lightning_trainer import PACKAGES
from resumecheck.adapters.placement import put_leaves, put_objects
from resumecheck.adapters.recorder import Captures, Recorder, RunStopped
from resumecheck.errors import UsageError
from resumecheck.runs.faults import FileEvents
from resumecheck.runs.opened import note_opened
from resumecheck.runs.spec import SEEN, Fault, RunEnd, RunSpec
from resumecheck.runs.target import factory_options, load_factory
from resumecheck.state.streams import set_streams
from resumecheck.state.walk import take_census
from resumecheck.trajectory import TrajectoryWriter, read_trajectory

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_ENGINE = tuple(str(Path(_PACKAGE, part)) for part in ("adapters", "runs", "state", "trajectory.py", "check.py"))


def execute(spec: RunSpec) -> RunEnd:
    """Build the target, train it as asked and record it; how it ended is returned and stored."""
    directory = Path(spec.directory)
    directory.mkdir(parents=True, exist_ok=True)
    Path(spec.output_dir).mkdir(parents=True, exist_ok=True)
    _freshen()
    run = _Run(spec)
    try:
        end = run.go()
    except UsageError as error:
        end = RunEnd("usage", error=str(error))
    except BaseException as error:
        end = RunEnd("failed", steps=run.steps, error=_describe(error), where=_where(error))
        traceback.print_exc()
    end = dataclasses.replace(
        end,
        steps=run.steps,
        max_steps=run.length.max_steps if run.length else None,
        steps_per_epoch=run.length.steps_per_epoch if run.length else None,
        overridden=tuple(run.adapter.overridden) if run.adapter else (),
    )
    end.write(directory)
    return end


@contextlib.contextmanager
def _watched_kernels(writer: TrajectoryWriter) -> Generator[None]:
    """Let torch name the kernels that it has no deterministic version of; nothing is refused."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            found = [
                re.match(r"(\S+) does not have a deterministic implementation", str(item.message)) for item in told
            ]
            writer.describe(kernels_without_determinism=list(dict.fromkeys(each[1] for each in found if each)))


def _freshen() -> None:
    """Global state that a forked process shares with its siblings is made as a fresh interpreter has it."""
    torch.set_num_threads(1)
    random.seed()
    np.random.seed()
    torch.default_generator.seed()  # else all runs of one server begin with the same draws, and chance looks like order


class _Run:
    """One run while it goes."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.adapter: Adapter | None = None
        self.recorder: Recorder | None = None
        self.length: Length | None = None
        self.writer: TrajectoryWriter | None = None
        self.events: FileEvents | None = None
        self._transplanted = False
        self._donor_epochs: frozenset[int] | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps that were executed here."""
        return self.recorder.finished_steps if self.recorder is not None else 0

    def go(self) -> RunEnd:
        """Build, attach, train."""
        spec = self.spec
        if spec.watch_files:
            note_opened(Path(spec.directory))
        factory = load_factory(spec.target)
        built = factory(spec.output_dir)
        adapter = self.adapter = adapter_for(built, Path(spec.output_dir), spec.target.name)
        adapter.entry = factory
        for name, text in spec.on_resume:
            value = adapter.argument(name, text)
            if spec.kind == "resumed":
                adapter.set_argument(name, value)
        writer = self.writer = TrajectoryWriter(Path(spec.directory))
        writer.describe(kind=spec.kind, target=spec.target.name, arguments=adapter.arguments(), versions=versions())
        writer.describe(frameworks=frameworks())
        if spec.watch_files:
            writer.describe(options=factory_options(factory))
        captures = Captures(
            census_at=frozenset(spec.census_at),
            live_at=frozenset(spec.live_at),
            tensors=spec.tensors,
            gradients=spec.gradients,
            batches_after=spec.batches_after,
            samples=spec.samples,
            trace_at=frozenset(spec.trace_at),
            live_at_end=spec.live_at_end,
        )
        recorder = self.recorder = Recorder(
            writer, adapter.live, stop=spec.stop, captures=captures, before_next_forward=self.before_next_forward
        )
        saving = Saving(own=spec.kind in ("source", "resumed"), at=frozenset(spec.save_at))
        adapter.attach(recorder, saving, self.begin)
        if spec.transplant is not None and spec.transplant.batches:
            adapter.feed(_donor_batches(Path(spec.transplant.donor)))
        if spec.transplant is not None and spec.transplant.logs:
            rows = read_trajectory(Path(spec.transplant.donor)).rows.values()
            adapter.log_as({row.step: [event["logs"] for event in row.events if "logs" in event] for row in rows})
        if spec.transplant is not None:
            self._put_arguments(spec.transplant)
        if spec.fault is not None:
            self._watch_save(recorder, spec.fault)
        resume_from = None
        if spec.resume_newest:
            resume_from = adapter.newest(Path(spec.output_dir))
            if resume_from is None:
                return RunEnd("nothing")
        elif spec.resume_step is not None:
            resume_from = adapter.checkpoint(Path(spec.output_dir), spec.resume_step)
        try:
            with _watched_kernels(writer) if spec.watch_kernels else contextlib.nullcontext():
                adapter.train(resume_from)
        except RunStopped:
            return RunEnd("stopped")
        finally:
            writer.describe(overridden=adapter.overridden, threads=torch.get_num_threads())
        recorder.finish(adapter.finished_steps())
        writer.close()
        return RunEnd("finished")

    def begin(self, length: Length) -> None:
        """Training begins: check that the run reaches what it was asked for."""
        self.length = length
        if self.writer is not None:
            self.writer.describe(max_steps=length.max_steps, steps_per_epoch=length.steps_per_epoch)
        if self.spec.kind == "plan":
            raise RunStopped
        last = length.max_steps
        late = [step for step in self.spec.save_at if last is not None and step >= last]
        if last is not None and late:
            raise UsageError(
                f"resume point {late[0]} is not inside the run: {self.spec.target.name} trains {last} "
                f"steps, so a resume point lies between 1 and {last - 1}"
            )

    def before_next_forward(self, done: int) -> None:
        """Everything that follows step `done` is over, and the next batch is here."""
        spec = self.spec
        if self.events is not None:
            self.events.stop()
        if done in spec.save_at and spec.fault is None and not spec.resume_newest:
            self._snapshot(done)
        if spec.kill is not None and spec.kill[0] == done:
            os.kill(os.getpid(), getattr(signal, spec.kill[1]))
        if spec.transplant is not None and not self._transplanted:
            self._transplanted = True
            self._put(spec.transplant, done)
        elif spec.transplant is not None and spec.transplant.batches:
            self._put_streams_of_loading(Path(spec.transplant.donor), done + 1)

    def _watch_save(self, recorder: Recorder, fault: Fault) -> None:
        """Count the events of a save from the end of its step on."""
        step_ends = recorder.step_ends

        def then_watch(step: int, epoch: float | None) -> None:
            step_ends(step, epoch)
            if step == fault.step:
                record = Path(self.spec.directory) / SEEN
                self.events = FileEvents(self.spec.output_dir, fault.event, fault.torn, record=record)

        recorder.step_ends = then_watch

    def _snapshot(self, done: int) -> None:
        """Copy the output directory as it is now: what a process that starts after a kill would find."""
        output_dir = Path(self.spec.output_dir)
        assert self.adapter is not None
        checkpoint = self.adapter.checkpoint(output_dir, done)
        if not checkpoint.exists():
            raise RuntimeError(f"no checkpoint was written at step {done}: {checkpoint} does not exist")
        if self.writer is not None:
            absent = {**self.writer.facts.get("absent_files", {}), str(done): self.adapter.absent_files(checkpoint)}
            self.writer.describe(absent_files=absent)
        target = Path(self.spec.directory) / "snapshots" / str(done)
        copy_output(output_dir, target, whole=checkpoint.name)

    def _put_streams_of_loading(self, donor: Path, step: int) -> None:
        """Making an epoch's iterator draws from torch's stream: with the donor's batches goes the donor's drawing."""
        assert self.recorder is not None
        if self._donor_epochs is None:
            rows = read_trajectory(donor).rows.values()
            self._donor_epochs = frozenset(row.step for row in rows if row.epoch_streams)
        stored = donor / "batches" / f"streams-{step}.pt"
        if (self.recorder.epoch_started or step in self._donor_epochs) and stored.exists():
            set_streams(torch.load(stored, weights_only=False))

    def _put_arguments(self, transplant: Any) -> None:
        """Put the donor's arguments in place before training begins: loaders and schedules are made from them."""
        assert self.adapter is not None
        names = [path.removeprefix("arguments.") for path in transplant.hidden if path.startswith("arguments.")]
        if names:
            stored = pickle.loads((Path(transplant.donor) / f"hidden-{self.spec.resume_step}.pkl").read_bytes())
            for name in names:
                if f"arguments.{name}" in stored:
                    self.adapter.set_argument(name, pickle.loads(stored[f"arguments.{name}"]))

    def _put(self, transplant: Any, done: int) -> None:
        """Put the donor's state in place."""
        assert self.adapter is not None
        assert self.recorder is not None
        donor = Path(transplant.donor)
        stored = torch.load(donor / f"live-{done}.pt", map_location="cpu", weights_only=False)
        live = self.recorder.live()
        failed = put_leaves(live, stored["state"], transplant.components)
        put_objects(live, stored["objects"], transplant.components)
        if "counters" in transplant.components:
            counters = {
                key.split("|", 2)[2]: value for key, value in stored["state"].items() if key.startswith("counters|")
            }
            self.adapter.put_counters(counters)
        set_streams({name: state for name, state in stored["streams"].items() if name in transplant.components})
        if transplant.hidden:
            values = pickle.loads((donor / f"hidden-{done}.pkl").read_bytes())
            census = take_census(live.roots)
            failed += [path for path in transplant.hidden if not census.put(path, values.get(path))]
        if self.writer is not None:
            self.writer.describe(not_transplanted=failed)


def copy_output(source: Path, target: Path, *, whole: str | None = None) -> None:
    """Copy an output directory. Files of other checkpoints than `whole` are linked: they are written once and large."""

    def copy(origin: str, destination: str) -> object:
        parts = Path(origin).relative_to(source).parts
        other = len(parts) > 1 and parts[0].startswith("checkpoint-") and parts[0] != whole and whole is not None
        if other:
            try:
                os.link(origin, destination)
                return destination
            except OSError:
                pass
        return shutil.copy2(origin, destination)

    shutil.copytree(source, target, copy_function=copy, symlinks=True)


def _donor_batches(donor: Path) -> Any:
    def batch(step: int, micro: int) -> Any:
        path = donor / "batches" / f"{step}-{micro}.pt"
        return torch.load(path, weights_only=False) if path.exists() else None

    return batch


def frameworks() -> list[str]:
    """Modules that are slow to import and that the target has imported, so that a server imports them once."""
    return [name for name in PACKAGES if name in sys.modules]


def versions() -> dict[str, str]:
    """The versions that a verdict depends on."""
    import accelerate
    import transformers

    import resumecheck

    lightning = {name: sys.modules[name].__version__ for name in frameworks()}
    return lightning | {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "resumecheck": resumecheck.__version__,
    }


def _describe(error: BaseException) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()  # torch colours some of its messages
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


def _where(error: BaseException) -> str:
    """file:line in function, of the innermost frame that is not the observer's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_ENGINE)]
    if not frames:
        return ""
    own = [frame for frame in frames if not frame.filename.startswith((sys.prefix, sys.base_prefix))]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno} in {frame.name}"
