"""SIGKILL at random moments of a run of the embedding trainer that saves after each of its 14 steps.

Each run is killed once, at a moment drawn evenly between its first checkpoint and its end, and goes on in another
process with `--resume_from_checkpoint latest`. Its final weights must be those of a run that was not killed, bit for
bit.

    python -m benchmarks.random_kills [--kills 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import TextIO

from tests.embedding.random_kill import RandomKills


def main() -> int:
    """Kill, resume, print; the exit status is 1 where a resumed run ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="runs that are killed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    started, outcomes = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as directory, quiet() as terminal:
        kills = RandomKills(directory, options.seed)
        for number in range(options.kills):
            outcomes.append(kills.kill_once())
            if not outcomes[-1].same:
                print(f"kill {number}: {outcomes[-1]}", file=terminal, flush=True)
    killed = [outcome for outcome in outcomes if not outcome.finished_before]
    points = collections.Counter(outcome.latest for outcome in killed)
    print(f"{len(outcomes)} runs, {time.perf_counter() - started:.0f} s")
    print(f"killed: {len(killed)}; the others had ended at the moment drawn")
    print(f"killed inside a save: {sum(outcome.in_a_save for outcome in killed)}")
    print("resumed from: " + ", ".join(f"{name} {count}" for name, count in sorted(points.items(), key=_step)))
    print(f"ended with other weights: {sum(not outcome.same for outcome in outcomes)}")
    return int(not all(outcome.same for outcome in outcomes))


@contextlib.contextmanager
def quiet() -> Iterator[TextIO]:
    """Keep what the runs print off the terminal; yields the way past it."""
    sys.stdout.flush()
    kept = [os.dup(number) for number in (1, 2)]
    with open(os.devnull, "w") as nowhere, os.fdopen(os.dup(2), "w") as terminal:
        try:
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            yield terminal
        finally:
            sys.stdout.flush()
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)


def _step(item: tuple[str | None, int]) -> int:
    return int((item[0] or "-0").rpartition("-")[2])


if __name__ == "__main__":
    raise SystemExit(main())
