"""What recording costs: steps of the MiniLM trainer with and without a recorder, paired in one process.

Steps alternate between recorded and unrecorded ones on the same batch, so that a machine whose speed drifts slows both
alike. Prints the median step time of each level as a ratio to the unrecorded one.

    python benchmarks/recording.py [--pairs 30] [--batch 32]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from resumecheck.adapters.recorder import Captures, Recorder
from resumecheck.embedding.demo import build
from resumecheck.state.capture import LiveState
from resumecheck.trajectory import TrajectoryWriter

LEVELS = ("off", "light", "full")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30, help="steps of each level (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        trainer = build(directory)
        trainer.create_optimizer_and_scheduler(100)
        batches = [trainer._prepare_inputs(batch) for batch in trainer.get_train_dataloader()]
        live = LiveState(
            {"model": trainer.model}, {"optimizer": trainer.optimizer}, {"lr_scheduler": trainer.lr_scheduler}
        )
        recorders = {
            level: Recorder(TrajectoryWriter(Path(directory, level)), lambda: live, captures=Captures(), level=level)
            for level in LEVELS[1:]
        }
        times: dict[str, list[float]] = {level: [] for level in LEVELS}
        for pair in range(options.pairs + 2):
            for level in LEVELS:
                seconds = step(trainer, batches[pair % len(batches)], recorders.get(level), pair + 1)
                if pair >= 2:
                    times[level].append(seconds)
    base = statistics.median(times["off"])
    print(f"{options.pairs} steps of each level, batch {len(batches[0]['queries']['input_ids'])}, one thread")
    for level in LEVELS:
        ratios = sorted(a / b for a, b in zip(times[level], times["off"], strict=True))
        print(
            f"{level:6s} median {statistics.median(times[level]) * 1e3:7.1f} ms, ratio of medians "
            f"{statistics.median(times[level]) / base:.3f}, median of paired ratios {statistics.median(ratios):.3f}"
        )


def step(trainer: object, batch: object, recorder: Recorder | None, number: int) -> float:
    """One optimizer step; with a recorder everything that it does in a step."""
    started = time.perf_counter()
    if recorder is not None:
        recorder.step_starts(number)
        recorder.batch(batch, None)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    if recorder is not None:
        recorder.loss(loss.detach())
        recorder.gradients()
        recorder.update([group["lr"] for group in trainer.optimizer.param_groups])
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    trainer.model.zero_grad()
    if recorder is not None:
        recorder.step_ends(number, None)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
