"""Turns what an adapter sees of a run into the rows of a trajectory.

The adapter calls, in this order for each optimizer step: `step_starts`, then for each micro-batch `batch` and `loss`,
then `gradients`, `update`, `step_ends`, and `event` whenever something happens. A row is closed when the next step
starts, or by `finish`. Nothing here draws from a random stream or changes a tensor.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from resumecheck.adapters.levels import Level, leaves_of_turn, part, together_by_component, turn
from resumecheck.adapters.placement import stored_objects
from resumecheck.adapters.trace import StepTrace
from resumecheck.state.capture import LiveState, digest_leaves, identity_facts, leaves, trained_parameters
from resumecheck.state.census import Census
from resumecheck.state.device_digest import Transfer, on_device, single_value, single_words
from resumecheck.state.digest import digest_into, together
from resumecheck.state.samples import sample_digests
from resumecheck.state.streams import digest_streams, read_streams
from resumecheck.state.walk import take_census
from resumecheck.trajectory import UNFINISHED, Micro, Row, TrajectoryWriter


class RunStopped(BaseException):
    """Ends a run that has gone as far as it was asked to. Not an Exception: no target may catch it by accident."""


@dataclasses.dataclass(frozen=True)
class Captures:
    """What to keep beside the digests.

    Attributes:
        census_at: resume points at which a census is taken.
        live_at: resume points at which the live values of the state are stored.
        tensors: step -> keys (`component|quantity|name`) of leaves to store after that step.
        gradients: step -> names of gradients to store in that step.
        batches_after: store every batch after this step, None for none.
        samples: write the digest of every sample to `samples.jsonl`.
        trace_at: steps of which every module's input and output is digested.
        live_at_end: store the live values of the state where the run ends or is stopped.
        census: whether censuses are taken at all: one walks everything that training can reach.
    """

    census_at: frozenset[int] = frozenset()
    live_at: frozenset[int] = frozenset()
    tensors: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    gradients: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    batches_after: int | None = None
    samples: bool = False
    trace_at: frozenset[int] = frozenset()
    live_at_end: bool = False
    census: bool = True


class Recorder:
    """Writes the trajectory of one run into `directory`.

    Args:
        writer: where rows go.
        live: gives the live state.
        stop: the step after which the run is stopped, None to let it end by itself.
        captures: what to keep beside the digests.
        level: `full` writes the digest of every tensor, `light` one for each component, and of gradients and moments
            one of a part that changes with the step.
        whole_saves: at the level `light`, digest every tensor at the start and where a checkpoint is saved, and note
            the random streams there.
        before_next_forward: called with the number of finished steps, before the state is read (for snapshots,
            transplants and kills).
    """

    def __init__(
        self,
        writer: TrajectoryWriter,
        live: Callable[[], LiveState],
        *,
        stop: int | None = None,
        captures: Captures | None = None,
        level: Level = "full",
        whole_saves: bool = False,
        before_next_forward: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.writer = writer
        self._show_live = live
        self.stop = stop
        self.captures = captures or Captures()
        self.level = level
        self.whole_saves = whole_saves
        self.before_next_forward = before_next_forward
        self.started = False
        self.finished_steps = 0
        self._row: Row | None = None
        self._transfer = Transfer()
        self._trace: StepTrace | None = None
        self._events: list[dict[str, Any]] = []
        self._epoch_streams: dict[str, str] = {}
        self._saved = False
        self.first_census: Census | None = None

    def live(self) -> LiveState:
        """The live state; parameters that belong to no model carry the path under which the census finds them."""
        live = self._show_live()
        if self.first_census is None and self.started and self.captures.census:
            self.first_census = take_census(live.roots)
        live.outside_names = self.first_census.tensor_paths if self.first_census is not None else {}
        return live

    @property
    def directory(self) -> Path:
        """The directory of the trajectory."""
        return self.writer.directory

    def step_starts(self, step: int) -> None:
        """The first forward of optimizer step `step` (1-based) is about to happen; its batch has been fetched."""
        done = step - 1
        if not self.started:
            self._row = Row(step=done, start=True)
            if self.whole_saves:
                self._row = dataclasses.replace(
                    self._row, streams=digest_streams(), epoch_streams=dict(self._epoch_streams)
                )
            self.started = True
        self.before_next_forward(done)
        at_end = self.stop is not None and done >= self.stop
        self._close_row(done, at_end=at_end)
        if at_end:
            raise RunStopped
        self._row = Row(step=step, streams=digest_streams())
        if step in self.captures.trace_at:
            self._trace = StepTrace(self.live().models)
        after = self.captures.batches_after
        if after is not None and step > after:
            (self.directory / "batches").mkdir(exist_ok=True)
            torch.save(read_streams(), self.directory / "batches" / f"streams-{step}.pt")
        self._row.epoch_streams, self._epoch_streams = self._epoch_streams, {}

    def epoch_starts(self) -> None:
        """An epoch's iterator is about to be created: the shuffle may draw from a random stream."""
        self._epoch_streams = digest_streams()

    @property
    def epoch_started(self) -> bool:
        """Whether an epoch's iterator was created since the last step started."""
        return bool(self._epoch_streams)

    def batch(self, content: Any, ids: list[Any] | None) -> None:
        """A micro-batch is about to go forward."""
        row = self._current()
        micro = Micro(batch="", ids=ids)
        row.micro.append(micro)
        digest_into(vars(micro), "batch", content, self._transfer)
        after = self.captures.batches_after
        if after is not None and row.step > after:
            torch.save(content, self.directory / "batches" / f"{row.step}-{len(row.micro) - 1}.pt")
        if self.captures.samples:
            with (self.directory / "samples.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps([row.step, sample_digests(content)]) + "\n")

    def loss(self, loss: torch.Tensor | float) -> None:
        """The loss of the micro-batch that went forward last."""
        self._number_into(self._current().micro[-1], "loss", loss)

    def gradients(self) -> None:
        """All micro-batches of the step have gone backward; gradients are not clipped yet."""
        row = self._current()
        found = {
            name: parameter.grad for name, parameter in trained_parameters(self.live()) if parameter.grad is not None
        }
        chosen = list(found) if self.level == "full" else part(found, row.step)
        for name in chosen:
            digest_into(row.gradients, name, found[name], self._transfer)
        dense = [gradient.float() for gradient in found.values() if gradient.layout is torch.strided]
        if dense:
            # Norms of several devices are brought to the first, as torch's clipping does it.
            norms = [norm.double().to(dense[0].device) for norm in torch._foreach_norm(dense)]
            self._number_into(row, "grad_norm", torch.linalg.vector_norm(torch.stack(norms)))
        wanted = self.captures.gradients.get(row.step)
        if wanted is not None:
            kept = {name: found[name].detach().cpu().clone() for name in wanted if name in found}
            torch.save(kept, self.directory / f"gradients-{row.step}.pt")

    def update(self, learning_rates: list[float]) -> None:
        """The optimizer is about to update with these learning rates, one for each parameter group."""
        self._current().lr = [float(rate) for rate in learning_rates]

    def step_ends(self, step: int, epoch: float | None) -> None:
        """The update of `step` is done."""
        if self._trace is not None:
            self._trace.close(self.directory / f"trace-{step}.json")
            self._trace = None
        self._current().epoch = epoch
        self.finished_steps += 1

    def event(self, kind: str, **facts: Any) -> None:
        """Something happened outside a step: an evaluation, a log, a save."""
        self._events.append({"kind": kind, **facts})

    def saving(self) -> None:
        """A checkpoint is about to be written: its row is written at once, since a kill may come during the save.

        The row is written again when the step is over; of two rows of a step the last one counts.
        """
        row = self._row
        if row is None:  # by hand, when training is over
            return
        self._saved = True
        self.event("save", streams=digest_streams())
        unfinished: dict[str, Any] = {"kind": UNFINISHED}
        self.writer.append(self._completed(row, self.live(), [*self._events, unfinished]))

    def finish(self, step: int) -> None:
        """The run has ended by itself after `step`."""
        if self._row is not None:
            self.before_next_forward(step)
            self._close_row(step, at_end=True)

    def _number_into(self, owner: Micro | Row, name: str, number: torch.Tensor | float) -> None:
        """Put a number in its place; one on a device comes with the digests, so that no step waits for it alone."""
        if not isinstance(number, torch.Tensor) or not on_device(number):
            setattr(owner, name, float(number))
            return
        dtype = number.dtype
        self._transfer.add(single_words(number), lambda words: setattr(owner, name, float(single_value(words, dtype))))

    def _current(self) -> Row:
        if self._row is None:
            raise RuntimeError("the adapter reported a batch before the start of a step")
        return self._row

    def _close_row(self, done: int, *, at_end: bool = False) -> None:
        """Complete the open row with the state found now, and write it."""
        row = self._row
        if row is None:
            return
        live = self.live()
        self.writer.append(self._completed(row, live, self._events))
        self._events, self._saved = [], False
        self._row = None
        self._capture(done, live, first=row.start)
        if at_end and self.captures.census:
            take_census(live.roots).write(self.directory / "census-end.json")
        if at_end and self.captures.live_at_end:
            tensors = [leaf for leaf in leaves(live) if isinstance(leaf.value, torch.Tensor)]
            torch.save(
                {f"{leaf.component}|{leaf.key}": _kept(leaf.value) for leaf in tensors}, self.directory / "end.pt"
            )

    def _completed(self, row: Row, live: LiveState, events: list[dict[str, Any]]) -> Row:
        """The row with the state found now."""
        light = self.level == "light"
        whole = not light or (self.whole_saves and (row.start or self._saved))
        state = digest_leaves(live, self._transfer, iter if whole else functools.partial(leaves_of_turn, row.step))
        self._transfer.fetch()
        return dataclasses.replace(
            row,
            gradients={turn(row.step): together(row.gradients)} if light and row.gradients else row.gradients,
            state=state if whole else together_by_component(state, row.step),
            identity=identity_facts(live),
            events=list(events),
        )

    def _capture(self, done: int, live: LiveState, *, first: bool) -> None:
        captures = self.captures
        if captures.census and (first or done in captures.census_at):
            census = self.first_census if first and self.first_census is not None else take_census(live.roots)
            census.write(self.directory / f"census-{'start' if first else done}.json")
        if done in captures.live_at:
            state = {f"{leaf.component}|{leaf.key}": _kept(leaf.value) for leaf in leaves(live)}
            stored = {"state": state, "streams": read_streams(), "objects": stored_objects(live)}
            torch.save(stored, self.directory / f"live-{done}.pt")
            take_census(live.roots).write_values(self.directory / f"hidden-{done}.pkl")
        wanted = captures.tensors.get(done)
        if wanted is not None:
            kept = {f"{leaf.component}|{leaf.key}": leaf.value for leaf in leaves(live)}
            torch.save({key: _kept(kept[key]) for key in wanted if key in kept}, self.directory / f"tensors-{done}.pt")


def _kept(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
