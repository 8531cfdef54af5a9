"""The record of a run: a directory with `run.json` and `steps.jsonl`, written as the run goes and read back as a whole.

A row of `steps.jsonl` belongs to one optimizer step and is written when everything that follows the step (logging,
evaluation, saving, the epoch boundary) is over, just before the next forward; so its `state` is what the next step
starts from. The first row is the start of the run: a step number, and the state found there. The format is described
in docs/trajectory.md; `FORMAT` is its version.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, SupportsIndex, overload

from resumecheck.state.components import ORDER

FORMAT = 1

#: The last event of a row that was written while its checkpoint was being saved.
UNFINISHED = "unfinished"


@dataclasses.dataclass
class Micro:
    """One micro-batch: digest of its content, sample ids where known, loss as an exact float."""

    batch: str
    ids: list[Any] | None = None
    loss: float | None = None


@dataclasses.dataclass
class Row:
    """One optimizer step.

    Attributes:
        step: the optimizer step, 1-based; of the first row the step after which the run starts.
        start: True for the first row, which has a state and nothing else.
        epoch: the epoch as the trainer counts it, after the step.
        micro: the micro-batches of the step.
        streams: digest of each random stream just before the first forward of the step.
        gradients: digest of each accumulated gradient before clipping, by parameter name.
        grad_norm: their total 2-norm, float64.
        lr: the learning rate of each parameter group that the update uses.
        state: component -> `quantity|name` -> digest, after everything that follows the step.
        identity: facts about which object holds which.
        events: what happened between the update and the next forward (`evaluate`, `log`, `save`).
        epoch_streams: digest of the random streams where an epoch's iterator was created, if one was.
    """

    step: int
    start: bool = False
    epoch: float | None = None
    micro: list[Micro] = dataclasses.field(default_factory=list)
    streams: dict[str, str] = dataclasses.field(default_factory=dict)
    gradients: dict[str, str] = dataclasses.field(default_factory=dict)
    grad_norm: float | None = None
    lr: list[float] = dataclasses.field(default_factory=list)
    state: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    identity: dict[str, Any] = dataclasses.field(default_factory=dict)
    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    epoch_streams: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """The mean loss over the micro-batches."""
        losses = [micro.loss for micro in self.micro if micro.loss is not None]
        return sum(losses) / len(losses) if losses else None

    @property
    def ids(self) -> list[Any] | None:
        """The sample ids of the whole step, None where they are not known."""
        if not self.micro or any(micro.ids is None for micro in self.micro):
            return None
        return [sample for micro in self.micro for sample in micro.ids or ()]


class TrajectoryWriter:
    """Writes a trajectory: `facts` are merged into run.json, rows are appended and flushed one by one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.facts: dict[str, Any] = {"format": FORMAT}
        self._rows: IO[str] = (directory / "steps.jsonl").open("w", encoding="utf-8")

    def describe(self, **facts: Any) -> None:
        """Add facts to run.json, which is replaced as a whole."""
        self.facts.update(facts)
        temporary = self.directory / "run.json.tmp"
        temporary.write_text(json.dumps(self.facts, indent=1, default=str), encoding="utf-8")
        os.replace(temporary, self.directory / "run.json")

    def append(self, row: Row) -> None:
        """Write one row and flush it, so that it survives a kill."""
        # Not dataclasses.asdict: it copies every digest of every tensor at every step.
        fields = {**vars(row), "micro": [vars(micro) for micro in row.micro]}
        self._rows.write(json.dumps(fields, separators=(",", ":"), default=str) + "\n")
        self._rows.flush()

    def close(self) -> None:
        """Close the rows."""
        self._rows.close()


class StepValues(list[float | None]):
    """A number for each step: a plain list, which knows what it holds so that a failing comparison can tell.

    Attributes:
        quantity: `loss`, `grad_norm` or `learning_rate`.
        run: the run in words.
        steps: the step of each element; a slice keeps its own.
    """

    def __init__(
        self, values: Iterable[float | None] = (), quantity: str = "", run: str = "", steps: range | None = None
    ) -> None:
        super().__init__(values)
        self.quantity, self.run = quantity, run
        self.steps = range(len(self)) if steps is None else steps

    @overload
    def __getitem__(self, index: SupportsIndex) -> float | None: ...
    @overload
    def __getitem__(self, index: slice) -> StepValues: ...
    def __getitem__(self, index: SupportsIndex | slice) -> float | StepValues | None:
        if isinstance(index, slice):
            return StepValues(super().__getitem__(index), self.quantity, self.run, self.steps[index])
        return super().__getitem__(index)


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A recorded run. `loss`, `learning_rate` and `grad_norm` are plain lists indexed by step (None where not run).

    Attributes:
        directory: where the record is.
        facts: what run.json says.
        rows: the rows by step.
        first_step: the step after which the run starts.
        torn: whether a kill has torn the last line, which is left out.
    """

    directory: Path
    facts: dict[str, Any]
    rows: dict[int, Row]
    first_step: int
    torn: bool = False

    @property
    def last_step(self) -> int:
        """The last optimizer step that the run finished."""
        return max(self.rows)

    @property
    def steps(self) -> range:
        """The optimizer steps of the run."""
        return range(self.first_step + 1, self.last_step + 1)

    @property
    def words(self) -> str:
        """The run in words, for messages."""
        return f"the run resumed after step {self.first_step}" if self.first_step else "the uninterrupted run"

    @property
    def loss(self) -> StepValues:
        """The mean loss of each step over its micro-batches, as exact floats."""
        return self._by_step("loss", lambda row: row.loss)

    @property
    def grad_norm(self) -> StepValues:
        """The total norm of the gradients of each step before clipping."""
        return self._by_step("grad_norm", lambda row: row.grad_norm)

    @property
    def learning_rate(self) -> StepValues:
        """The learning rate of the first parameter group that each update used."""
        return self._by_step("learning_rate", lambda row: row.lr[0] if row.lr else None)

    def _by_step(self, quantity: str, value: Callable[[Row], float | None]) -> StepValues:
        rows = [None if step <= self.first_step else self.rows.get(step) for step in range(self.last_step + 1)]
        return StepValues([None if row is None else value(row) for row in rows], quantity, self.words)


class NothingRecordedError(ValueError):
    """A run that was recorded before its first step ended; `torn` as in `Trajectory`."""

    def __init__(self, directory: Path, *, torn: bool) -> None:
        super().__init__(f"{directory}: the run recorded no step")
        self.torn = torn


def read_trajectory(directory: Path) -> Trajectory:
    """Read a recorded run; a last line that a kill has torn is left out, and of two rows of a step the last one counts.

    Raises:
        ValueError: no trajectory is there, its format version is not known, or a line of it is damaged.
    """
    file = directory / "steps.jsonl"
    try:
        facts = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        lines = file.read_bytes().splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{directory}: no recorded run is there ({error})") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise ValueError(f"{directory}: trajectory format {found!r} is not known, expected {FORMAT}")
    rows: dict[int, Row] = {}
    first: int | None = None
    torn = False
    for number, line in enumerate(lines, start=1):
        try:
            row = _read_row(line)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            torn = number == len(lines) and not line.endswith(b"\n")
            if torn:
                break
            raise ValueError(f"{file}, line {number}: no row of a recorded run ({str(error)[:80]})") from error
        if row.start and first is None:
            first = row.step
        rows[row.step] = row
    if not rows or first is None:
        raise NothingRecordedError(directory, torn=torn)
    return Trajectory(directory, facts, rows, first, torn)


def _read_row(line: bytes) -> Row:
    fields: dict[str, Any] = json.loads(line)
    fields["micro"] = [Micro(**micro) for micro in fields["micro"]]
    return Row(**fields)


def senseless_step(run: Trajectory) -> int | None:
    """The step of the first row with a field of another type than docs/trajectory.md says, None where there is none."""
    return next((step for step, row in run.rows.items() if not _makes_sense(row)), None)


def _makes_sense(row: Row) -> bool:

    def texts(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())

    def number(value: Any) -> bool:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))

    return (
        type(row.step) is int
        and 0 <= row.step < 2**60
        and isinstance(row.micro, list)
        and all(number(micro.loss) and isinstance(micro.ids, list | None) for micro in row.micro)
        and texts(row.streams)
        and row.streams.keys() <= ORDER.keys()
        and texts(row.gradients)
        and number(row.grad_norm)
        and isinstance(row.lr, list)
        and all(number(rate) for rate in row.lr)
        and isinstance(row.state, dict)
        and row.state.keys() <= ORDER.keys()
        and all(texts(leaves) for leaves in row.state.values())
        and isinstance(row.identity, dict)
        and texts(row.epoch_streams)
        and isinstance(row.events, list)
        and all(_event_makes_sense(event, number) for event in row.events)
    )


def _event_makes_sense(event: Any, number: Callable[[Any], bool]) -> bool:
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return False
    metrics, logs = event.get("metrics", {}), event.get("logs", {})
    wanted = {"evaluate": "metrics", "log": "logs"}.get(event["kind"])
    named = isinstance(metrics, dict) and isinstance(logs, dict) and (wanted is None or wanted in event)
    return named and all(number(value) for value in metrics.values())
