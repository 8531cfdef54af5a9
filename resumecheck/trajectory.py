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

FORMAT = 1


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
    """A recorded run. `loss`, `learning_rate` and `grad_norm` are plain lists indexed by step (None where not run)."""

    directory: Path
    facts: dict[str, Any]
    rows: dict[int, Row]
    first_step: int

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


def read_trajectory(directory: Path) -> Trajectory:
    """Read a recorded run; a last line that a kill has torn is left out.

    Raises:
        ValueError: no trajectory is there, or its format version is not known.
    """
    try:
        facts = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        lines = (directory / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{directory}: no recorded run is there ({error})") from error
    if facts.get("format") != FORMAT:
        raise ValueError(f"{directory}: trajectory format {facts.get('format')!r} is not known, expected {FORMAT}")
    rows: dict[int, Row] = {}
    first: int | None = None
    for line in lines:
        try:
            fields: dict[str, Any] = json.loads(line)
        except ValueError:
            break
        fields["micro"] = [Micro(**micro) for micro in fields["micro"]]
        row = Row(**fields)
        if row.start and first is None:
            first = row.step
        rows[row.step] = row
    if not rows or first is None:
        raise ValueError(f"{directory}: the run recorded no step")
    return Trajectory(directory, facts, rows, first)
