"""A run that saves after every step, killed at a random moment and resumed by `latest`."""

import dataclasses
import os
import random
import shutil
import signal
import time
from pathlib import Path

from resumecheck.embedding import checkpoint
from resumecheck.embedding.train import main
from tests.embedding import forks, tiny

#: Steps of the run, two epochs of 7 batches; it keeps two checkpoints.
STEPS = 14


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was found after a kill, and whether the resumed run ended with the weights of the reference."""

    moment: float
    latest: str | None
    in_a_save: bool
    finished_before: bool
    same: bool


class RandomKills:
    """Runs in forked children; `directory` holds encoder, data and the reference."""

    def __init__(self, directory, seed):
        self.directory = Path(directory)
        self.encoder = tiny.write_encoder(self.directory / "encoder")
        self.data = tiny.write_rows(self.directory / "data" / "train.jsonl", tiny.rows(tiny.ROWS))
        self.draw = random.Random(seed)
        assert forks.run(lambda: main(self.options("warm-up"))) == 0
        self.took = self._timed("reference")
        self.reference = self._weights("reference")
        assert self._weights("warm-up") == self.reference

    def options(self, name, **changes):
        plain = {"gradient_accumulation_steps": 1, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
        return tiny.train_options(self.encoder, self.data, self.directory / name, **plain, **changes)

    def kill_once(self):
        """Kill a run after its first checkpoint, at a moment drawn evenly up to its end, and resume it."""
        output_dir = self.directory / "out"
        shutil.rmtree(output_dir, ignore_errors=True)
        child = forks.start(lambda: main(self.options("out")))
        while not (output_dir / "checkpoint-1").exists():
            time.sleep(0.0005)
        moment = self.draw.uniform(0, self.took)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        killed = forks.was_killed(forks.wait(child))
        latest = checkpoint.newest_whole(output_dir)
        in_a_save = bool(checkpoint.leftovers(output_dir))
        status = forks.run(lambda: main(self.options("out", resume_from_checkpoint="latest")))
        same = status == 0 and self._weights("out") == self.reference
        return Outcome(moment, latest and latest.name, in_a_save, not killed, same)

    def _weights(self, name):
        return (self.directory / name / "model.safetensors").read_bytes()

    def _timed(self, name):
        """Seconds from the first checkpoint to the end of the run."""
        child = forks.start(lambda: main(self.options(name)))
        while not (self.directory / name / "checkpoint-1").exists():
            time.sleep(0.0005)
        started = time.perf_counter()
        assert forks.wait(child) == 0
        return time.perf_counter() - started
