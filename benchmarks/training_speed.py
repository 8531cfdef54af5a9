"""Training speed and memory: this trainer, sentence-transformers' and FlagEmbedding's, side by side in one run.

all-MiniLM-L6-v2 on the Cranfield rows (a query, a positive, negatives), the same data, batch, lengths and optimizer for
all, one thread each. In a round every trainer runs once, alone, in a process of its own and in changing order; ratios
are taken inside a round, and their median is given. A step is timed from the end of one to the end of the next; the
first are not counted. Memory is the peak of the process. FlagEmbedding needs an environment of its own
(`benchmarks/flagembedding/environment.sh` makes one); without it the other two are compared.

    python -m benchmarks.training_speed DATA [--rounds 3] [--steps 8] [--flagembedding PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from resumecheck.embedding.demo import encoder_directory

RUN = Path(__file__).with_name("training_speed_run.py")
#: name -> passages to a query, rows to a batch, longest text in tokens
SETTINGS = {
    "pairs, up to 256 tokens": (1, 32, 256),
    "three negatives, up to 512 tokens": (4, 8, 512),
}


def main() -> int:
    """Run the rounds, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory with train.jsonl")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="steps of a run (default: %(default)s)")
    parser.add_argument("--flagembedding", help="the interpreter of an environment with FlagEmbedding 1.4.2")
    options = parser.parse_args()
    trainers = {"resumecheck": sys.executable, "sentence_transformers": sys.executable}
    if options.flagembedding:
        trainers["flagembedding"] = options.flagembedding
    for name, (group, batch, length) in SETTINGS.items():
        print(f"{name}; {batch} rows to a batch", flush=True)
        rounds = []
        for number in range(options.rounds):
            order = list(trainers)[number % len(trainers) :] + list(trainers)[: number % len(trainers)]
            rounds.append({})
            for trainer in order:
                settings = {"group": group, "batch": batch, "length": length, "steps": options.steps}
                rounds[-1][trainer] = run(trainers[trainer], trainer, options.data, settings)
        show(rounds, batch)
    return 0


def run(python: str, trainer: str, data: Path, settings: dict[str, Any]) -> dict[str, float]:
    """What one run measured."""
    with tempfile.TemporaryDirectory() as directory:
        settings |= {
            "model": str(encoder_directory()),
            "data": str(data / "train.jsonl"),
            "output_dir": f"{directory}/out",
            "cache": f"{directory}/cache",
        }
        environment = os.environ | {"PYTHONPATH": str(RUN.parent.parent), "OMP_NUM_THREADS": "1"}
        command = [python, str(RUN), trainer, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{trainer} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(rounds: list[dict[str, dict[str, float]]], batch: int) -> None:
    """Medians, and ratios to this trainer."""
    for trainer in rounds[0]:
        here = [one[trainer] for one in rounds]
        cpu, wall, peak = (statistics.median(one[field] for one in here) for field in ("cpu", "wall", "peak_mib"))
        faster = {
            field: statistics.median(one[trainer][field] / one["resumecheck"][field] for one in rounds)
            for field in ("cpu", "wall", "peak_mib")
        }
        print(
            f"  {trainer:22} {batch / wall:6.2f} rows/s; a step {wall:.2f} s ({cpu:.2f} s of CPU); "
            f"peak {peak:.0f} MiB; to resumecheck: {faster['wall']:.2f} of the time, {faster['cpu']:.2f} of CPU time, "
            f"{faster['peak_mib']:.2f} of memory",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
