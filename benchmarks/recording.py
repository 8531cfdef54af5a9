"""What recording costs: the MiniLM trainer of `make verify`, by turns at no level, `light`, `full`, `callback`.

`light` and `full` are the levels of a check; `callback` is what `resumecheck.Recorder` does in production: `light`
without a census. It also records each save in full; what that adds to a save is measured by itself, at the end.

One run of `Trainer.train` with the adapter attached as in a check. A round is one step of each level, in changing order
and on the same batch, and a step lasts from one call of `step_starts` to the next, so it holds everything that the
adapter and the recorder do: random streams, batch, sample ids, loss, gradients, state, identity, writing the row. A
recorder closes its row at its own next step, so every recorded step closes one row and opens one.

Ratios to the unrecorded step are taken inside a round, since a machine whose speed drifts slows all three alike; their
median is given, of wall time and of the CPU time of the process. Recording runs in the thread that trains and waits for
nothing, so on a free machine the two are the same; where others use the machine, wall time is mostly waiting for them,
and CPU time decides.

    python benchmarks/recording.py [--rounds 40] [--batch 8]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from resumecheck.adapters.contract import Saving
from resumecheck.adapters.recorder import Recorder
from resumecheck.adapters.transformers_trainer import TrainerAdapter
from resumecheck.embedding.demo import build
from resumecheck.production.recorder import step_recorder
from resumecheck.trajectory import TrajectoryWriter

LEVELS = ("off", "light", "full", "callback")
#: The most that a step may cost, as a ratio to a step that is not recorded.
ALLOWED = {"light": 1.05, "full": 1.15, "callback": 1.05}
#: Rounds that are not counted: each recorder takes its first census, buffers are allocated.
WARMUP = 2
#: How often the recording of a save is timed.
SAVES = 9


class Turns:
    """Stands where the adapter expects one recorder, and passes each step on to the recorder of its level."""

    def __init__(self, recorders: dict[str, Recorder]) -> None:
        self.recorders = recorders
        self.started = False
        self.wall: dict[str, list[float]] = {level: [] for level in LEVELS}
        self.cpu: dict[str, list[float]] = {level: [] for level in LEVELS}
        self.batch_of_round: Any = None
        self._level = "off"
        self._began: tuple[float, float] | None = None

    def step_starts(self, step: int) -> None:
        """Ends the step before, and begins one of the next level."""
        now = time.perf_counter(), time.process_time()
        if self._began is not None:
            self.wall[self._level].append(now[0] - self._began[0])
            self.cpu[self._level].append(now[1] - self._began[1])
        self._began, self.started = now, True
        turn, place = divmod(step - 1, len(LEVELS))
        self._level = LEVELS[(turn + place) % len(LEVELS)]
        if place == 0:
            self.batch_of_round = None
        self._pass_on("step_starts", step)

    def batch(self, content: Any, ids: list[Any] | None) -> None:
        """Keeps the first batch of a round for the others."""
        self.batch_of_round = content
        self._pass_on("batch", content, ids)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self._pass_on(name, *args, **kwargs)

    def _pass_on(self, name: str, *args: Any, **kwargs: Any) -> None:
        if self._level in self.recorders:
            getattr(self.recorders[self._level], name)(*args, **kwargs)


def main() -> int:
    """Measure and print; 0 where the costs are within what is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="steps of each level (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="queries in a batch (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        turns = measure(Path(directory), options.rounds, options.batch)
        saves = [timed(turns.recorders["callback"].saving) for _ in range(SAVES)]
    print(
        f"{options.rounds} rounds, one thread, batches of {len(turns.batch_of_round['queries']['input_ids'])} queries"
    )
    met = True
    for level in LEVELS:
        wall, cpu = (paired(times[level], times["off"]) for times in (turns.wall, turns.cpu))
        allowed = ALLOWED.get(level)
        met = met and (allowed is None or cpu <= allowed)
        print(
            f"{level:8s} wall {statistics.median(turns.wall[level][WARMUP:]) * 1e3:6.1f} ms, ratio {wall:.3f}; "
            f"CPU {statistics.median(turns.cpu[level][WARMUP:]) * 1e3:6.1f} ms, ratio {cpu:.3f}"
            + (f"; allowed {allowed:.2f}" if allowed else "")
        )
    print(f"a save takes {statistics.median(saves) * 1e3:.1f} ms longer, median of {len(saves)}, wall")
    return 0 if met else 1


def measure(directory: Path, rounds: int, batch: int) -> Turns:
    """Train for so many rounds."""
    trainer = build(str(directory))
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = batch
    # One step more than the rounds have: a step ends where the next one starts.
    trainer.args.max_steps = (rounds + WARMUP) * len(LEVELS) + 1
    adapter = TrainerAdapter(trainer, directory)
    recorders = {
        level: Recorder(TrajectoryWriter(directory / level), adapter.live, level=level) for level in ("light", "full")
    }
    recorders["callback"] = step_recorder(TrajectoryWriter(directory / "callback"), adapter.live, "light")
    turns = Turns(recorders)
    adapter.attach(turns, Saving(own=False), lambda length: None)  # ty: ignore[invalid-argument-type]
    adapter.feed(lambda step, micro: turns.batch_of_round)
    adapter.train(None)
    return turns


def timed(action: Any) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def paired(times: list[float], unrecorded: list[float]) -> float:
    """The median over rounds of the time of a step to that of the unrecorded step of the same round."""
    return statistics.median(a / b for a, b in zip(times[WARMUP:], unrecorded[WARMUP:], strict=True))


if __name__ == "__main__":
    raise SystemExit(main())
