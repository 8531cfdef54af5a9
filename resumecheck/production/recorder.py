"""The callback that records a production run: a segment for each start of training, in the form of a trajectory.

The first event finds the trainer, and from then on the adapter of the checks reads it (`adapters/`). What fails while
recording ends the record and not the run.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from resumecheck.adapters.contract import Length, Saving
from resumecheck.adapters.levels import Level
from resumecheck.adapters.loader_ids import LoaderIds
from resumecheck.adapters.recorder import Captures
from resumecheck.adapters.recorder import Recorder as StepRecorder
from resumecheck.adapters.transformers_trainer import Observes, TrainerAdapter, TrainerEvents
from resumecheck.errors import UsageError
from resumecheck.production.record import claim_segment
from resumecheck.runs.worker import versions
from resumecheck.state.capture import LiveState
from resumecheck.state.process import process_state
from resumecheck.trajectory import TrajectoryWriter

_LOG = logging.getLogger(__name__)


class Recorder(Observes):
    """A callback of `transformers.Trainer` that records a run in production, for `resumecheck audit`.

    Give it to the trainer at every start of the run, resumed or not, with the same directory. Each start of training
    becomes a segment of the record: digests of batches, random streams, gradients and state, losses, learning rates and
    sample ids, a row for each optimizer step. At the start and at each checkpoint the digest of every tensor is
    recorded. A row is handed to the operating system as soon as it is complete, so it survives a SIGKILL.

    Recording draws from no random stream and changes no tensor. What fails while recording, say a full disk, is logged,
    and the run goes on without its record. Of several processes the first one records what it has. The runs of a check
    (`resumecheck verify`) are not recorded.

    Args:
        directory: where the record is; it is made where there is none. Segments are only ever added to it.
        level: `light` records one digest for each component in a step, `full` one for each tensor.

    Raises:
        UsageError: when training begins: the directory cannot be written, it is not a Trainer that trains, or its state
            is in pieces over several processes (FSDP, DeepSpeed).

    Example:
        >>> trainer = Trainer(..., callbacks=[resumecheck.Recorder("runs/a")])  # doctest: +SKIP
        >>> trainer.train(resume_from_checkpoint=newest)  # doctest: +SKIP
        >>> resumecheck.audit("runs/a").verdict  # doctest: +SKIP
        'exact'
    """

    def __init__(self, directory: str | os.PathLike[str], *, level: Level = "light") -> None:
        if level not in ("light", "full"):
            raise UsageError(f"Recorder(level={level!r}): expected 'light' or 'full'")
        self.directory = Path(directory)
        self.level: Level = level
        self._segment: _Segment | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin a segment."""
        if self._segment is not None:  # the last training of this trainer ended by an exception
            self._segment.close()
            self._segment = None
        trainer, resumed_from = _training_of(self)
        if state.is_world_process_zero and not _in_a_check(trainer):
            self._segment = _Segment(self.directory, self.level, trainer, resumed_from)
            self._pass_on("on_train_begin", args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The run has ended by itself."""
        if self._segment is not None:
            self._segment.finish(state.global_step)
            self._segment.close()
            self._segment = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An optimizer step begins."""
        self._pass_on("on_step_begin", args, state, control, **kwargs)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The update is about to happen."""
        self._pass_on("on_pre_optimizer_step", args, state, control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The update is done."""
        self._pass_on("on_step_end", args, state, control, **kwargs)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation has ended."""
        self._pass_on("on_evaluate", args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Numbers were logged."""
        self._pass_on("on_log", args, state, control, **kwargs)

    def _pass_on(self, event: str, *args: Any, **kwargs: Any) -> None:
        if self._segment is not None:
            self._segment.careful(getattr(self._segment.events, event))(*args, **kwargs)


class _Segment:
    """One start of training, as it is recorded."""

    def __init__(self, directory: Path, level: Level, trainer: Trainer, resumed_from: str | None) -> None:
        self.trainer = trainer
        self.failed = False
        self.adapter = TrainerAdapter(trainer, Path(str(trainer.args.output_dir)))
        self.ids = LoaderIds()
        try:
            self.writer = TrajectoryWriter(claim_segment(directory))
            self.writer.describe(
                kind="production",
                level=level,
                started=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                output_dir=str(trainer.args.output_dir),
                resumed_from=resumed_from,
                versions=versions(),
                arguments=self.adapter.arguments(),
                environment=_environment(trainer),
            )
        except OSError as error:
            raise UsageError(
                f"Recorder({str(directory)!r}): the record cannot be written ({error.strerror or error})"
            ) from error
        self.recorder: Any = _Careful(step_recorder(self.writer, self.adapter.live, level), self.careful)
        self.events: TrainerEvents = self.adapter.observe(self.recorder, Saving(own=True), self._begin, self.ids)
        self.adapter.wrap("_save_checkpoint", self._save_checkpoint)
        self.adapter.wrap("_load_best_model", self._load_best_model)
        self.ids.watch(getattr(trainer.callback_handler, "train_dataloader", None))
        if resumed_from is not None:
            self.careful(self._note_absent_files)(Path(resumed_from))

    def careful(self, action: Callable[..., Any]) -> Callable[..., Any]:
        """The action, until one fails; then nothing is recorded any more."""

        @functools.wraps(action)
        def act(*args: Any, **kwargs: Any) -> None:
            if self.failed:
                return
            try:
                action(*args, **kwargs)
            except Exception as error:
                self.failed = True
                _LOG.warning("the run is no longer recorded in %s", self.writer.directory, exc_info=True)
                with contextlib.suppress(Exception):
                    self.writer.describe(failed=f"{type(error).__name__}: {str(error)[:200]}")

        return act

    def finish(self, step: int) -> None:
        """The last step is over."""
        self.recorder.finish(step)
        self.careful(self.writer.describe)(ended="by itself")

    def close(self) -> None:
        """Let go of the trainer."""
        self.adapter.unwrap()
        self.ids.uninstall()
        with contextlib.suppress(OSError):
            self.writer.close()

    def _begin(self, length: Length) -> None:
        self.writer.describe(max_steps=length.max_steps, steps_per_epoch=length.steps_per_epoch)

    def _note_absent_files(self, checkpoint: Path) -> None:
        self.writer.describe(absent_files=self.adapter.absent_files(checkpoint))

    def _save_checkpoint(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around a save: the state goes into the record before the checkpoint can be there."""
        self.recorder.saving()
        return original(*args, **kwargs)

    def _load_best_model(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around the loading of other weights at the end: the last step has its own."""
        self.recorder.finish(self.trainer.state.global_step)
        return original(*args, **kwargs)


def step_recorder(writer: TrajectoryWriter, live: Callable[[], LiveState], level: Level) -> StepRecorder:
    """What writes the rows of a segment: without a census, and in full where a checkpoint is saved."""
    return StepRecorder(writer, live, level=level, whole_saves=True, captures=Captures(census=False))


class _Careful:
    """Stands where the adapter expects a recorder; a call that fails is the last one."""

    def __init__(self, recorder: StepRecorder, careful: Callable[..., Any]) -> None:
        self._recorder = recorder
        self._careful = careful

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._recorder, name)
        return self._careful(found) if callable(found) else found


def _training_of(callback: Recorder) -> tuple[Trainer, str | None]:
    """The trainer that has called, and the checkpoint that it resumes from: an event is given neither of them."""
    frame = sys._getframe(1)
    resumed_from: str | None = None
    while frame is not None:
        given = frame.f_locals.get("resume_from_checkpoint")
        if resumed_from is None and isinstance(given, str | os.PathLike):
            resumed_from = str(given)
        trainer = frame.f_locals.get("self")
        if isinstance(trainer, Trainer) and any(each is callback for each in trainer.callback_handler.callbacks):
            _check_whole(trainer)
            return trainer, resumed_from
        frame = frame.f_back
    raise UsageError("Recorder: no transformers.Trainer has called; give it to one, as callbacks=[Recorder(directory)]")


def _in_a_check(trainer: Trainer) -> bool:
    """Whether this training is one of the runs of `resumecheck verify`, which are no starts of the recorded run."""
    attached = any(isinstance(callback, TrainerEvents) for callback in trainer.callback_handler.callbacks)
    return attached or "RESUMECHECK_RECORD" in os.environ


def _check_whole(trainer: Trainer) -> None:
    """UsageError where the state of the run is in pieces: to read them takes all processes, and would stop this one."""
    parameters = trainer.model.parameters() if trainer.model is not None else ()
    pieces = any(hasattr(parameter, "to_local") for parameter in parameters)
    if pieces or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UsageError(
            "Recorder: the state of this run is in pieces (FSDP, DeepSpeed, tensor parallel), which is not recorded;\n"
            "leave the callback out"
        )


def _environment(trainer: Trainer) -> dict[str, Any]:
    """What the process computes with, beyond versions and arguments."""
    device = trainer.args.device
    return {
        "world_size": trainer.args.world_size,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED"),
        **{path: value for path, value, _setter in process_state() if path.startswith("torch.")},
    }
