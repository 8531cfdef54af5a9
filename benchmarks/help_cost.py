"""What the plugin adds to `pytest --help`, of wall time and of CPU time, over a pytest without it.

A round is one process with the plugin and one with `-p no:resumecheck`, in changing order, so that a machine whose
speed drifts slows both alike. All other plugins are left out. `-p no:` also spares importing the plugin, so the
difference is all of its cost. The differences are taken inside a round and their median is given; where others use the
machine, wall time is mostly waiting for them, and CPU time decides. All modules are compiled before the first round.

    python benchmarks/help_cost.py [--rounds 40]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

#: The most that `pytest --help` may take longer, in milliseconds.
ALLOWED = 20.0

WITH, WITHOUT = ("-p", "resumecheck.plugin"), ("-p", "no:resumecheck")


def main() -> int:
    """Measure and print; 0 where the cost is within what is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="pairs of processes (default: %(default)s)")
    rounds = parser.parse_args().rounds
    differences: list[tuple[float, float]] = []
    alone: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as directory:
        for options in (WITH, WITHOUT):  # Compiles what is compiled where a package is installed.
            measure(options, directory)
        for turn in range(rounds):
            pair = (WITH, WITHOUT) if turn % 2 == 0 else (WITHOUT, WITH)
            times = {options: measure(options, directory) for options in pair}
            alone.append(times[WITHOUT])
            differences.append((times[WITH][0] - times[WITHOUT][0], times[WITH][1] - times[WITHOUT][1]))
    wall, cpu = (statistics.median(column) * 1e3 for column in zip(*differences, strict=True))
    base = [statistics.median(column) * 1e3 for column in zip(*alone, strict=True)]
    print(f"pytest --help without the plugin: wall {base[0]:.0f} ms, CPU {base[1]:.0f} ms; {rounds} rounds")
    print(f"with the plugin: wall {wall:+.1f} ms, CPU {cpu:+.1f} ms; allowed {ALLOWED:+.1f} ms of CPU time")
    return 0 if cpu <= ALLOWED else 1


def measure(options: tuple[str, ...], directory: str) -> tuple[float, float]:
    """Wall and CPU time of one process, in seconds."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPYCACHEPREFIX": directory}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--help"],
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
