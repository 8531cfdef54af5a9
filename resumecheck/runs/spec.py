"""What a run is asked to do (`RunSpec`) and how it ended (`RunEnd`): plain facts that cross the process border."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from resumecheck.runs.target import Target

#: In the directory of a run whose save is watched: its events, or the one that it did not survive.
SEEN = "file-events.json"

Kind = Literal["plan", "reference", "source", "resumed"]


@dataclasses.dataclass(frozen=True)
class Transplant:
    """Which stored state to put into a resumed run before its first forward.

    Attributes:
        components: components to put in place.
        hidden: paths of census units to put in place.
        donor: directory of the run that stored its live state.
        batches: whether to train on the donor's batches.
        logs: whether to log the donor's numbers.
    """

    components: frozenset[str] = frozenset()
    hidden: tuple[str, ...] = ()
    donor: str = ""
    batches: bool = False
    logs: bool = False


@dataclasses.dataclass(frozen=True)
class Fault:
    """How a run dies in a save.

    Attributes:
        step: the save is what happens after this step and before the next.
        event: number of the event in the output directory that the run does not survive, None to only list them.
        torn: whether it dies in the middle of the event.
    """

    step: int
    event: int | None = None
    torn: bool = False


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One run.

    Attributes:
        target: what to build.
        kind: `plan` builds and starts, and stops before the first forward.
        directory: where the trajectory goes.
        output_dir: what the factory is given.
        stop: the step after which the run is stopped, None for the target's own end.
        save_at: steps at which a checkpoint is written; unless the run is to die or has died, the output directory is
            copied then.
        resume_step: the step of the checkpoint to load, None to start anew.
        census_at, live_at, tensors, gradients, batches_after, samples, trace_at, live_at_end: see
            `adapters.recorder.Captures`.
        transplant: state to put in place, None for none.
        on_resume: arguments to change in a resumed run; in others it is only checked that they can be.
        resume_newest: resume from what the target itself finds in the output directory.
        fault: the run's save is listed event by event, or killed at one of them.
        kill: (step, signal name): the run kills itself before the first forward after that step.
        watch_kernels: whether torch names the kernels that are not deterministic.
        watch_files: whether the files that it opens, and the options of the factory, are noted.
        hash_seed: which of the preloaded servers runs it.
    """

    target: Target
    kind: Kind
    directory: str
    output_dir: str
    stop: int | None = None
    save_at: tuple[int, ...] = ()
    resume_step: int | None = None
    census_at: tuple[int, ...] = ()
    live_at: tuple[int, ...] = ()
    tensors: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    gradients: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    batches_after: int | None = None
    samples: bool = False
    trace_at: tuple[int, ...] = ()
    live_at_end: bool = False
    transplant: Transplant | None = None
    on_resume: tuple[tuple[str, str], ...] = ()
    resume_newest: bool = False
    fault: Fault | None = None
    kill: tuple[int, str] | None = None
    watch_kernels: bool = False
    watch_files: bool = False
    hash_seed: int = 1


@dataclasses.dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        status: `finished` (by itself), `stopped` (as asked), `failed` (the target raised), `usage` (wrong input),
            `died` (the process is gone without a word), `nothing` (no checkpoint was found to resume from).
        steps: optimizer steps that this process executed.
        max_steps, steps_per_epoch: the target's own length.
        error: the exception as text.
        where: the innermost place of the traceback that is not in resumecheck.
        overridden: what the checker had to change in the target.
    """

    status: Literal["finished", "stopped", "failed", "usage", "died", "nothing"]
    steps: int = 0
    max_steps: int | None = None
    steps_per_epoch: int | None = None
    error: str = ""
    where: str = ""
    overridden: tuple[str, ...] = ()

    def write(self, directory: Path) -> None:
        """Store as `end.json`."""
        (directory / "end.json").write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")


def read_end(directory: Path) -> RunEnd:
    """How the run in `directory` ended; `died` where it left no word."""
    try:
        fields: dict[str, Any] = json.loads((directory / "end.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return RunEnd("died", error=_last_words(directory))
    fields["overridden"] = tuple(fields.get("overridden", ()))
    return RunEnd(**fields)


def _last_words(directory: Path) -> str:
    try:
        lines = (directory / "output.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"; its last line was: {lines[-1][:200]}" if lines else ""
