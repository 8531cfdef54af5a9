"""What the plugin adds to `pytest --help`, of wall time and of CPU time, over a pytest without it.

A round is one process with the plugin and one with `-p no:resumecheck`, in changing order, so that a machine whose
speed drifts slows both alike. All other plugins are left out. `-p no:` also spares importing the plugin, so the
difference is all of its cost. All modules are compiled before the first round.

Other programs on the machine only ever add time, so the fastest process of each kind is compared, in CPU time; the
median of the differences inside the rounds is printed as well, and scatters with the load.

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
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {WITH: [], WITHOUT: []}
    with tempfile.TemporaryDirectory() as directory:
        for options in (WITH, WITHOUT):  # Compiles what is compiled where a package is installed.
            measure(options, directory)
        for turn in range(rounds):
            pair = (WITH, WITHOUT) if turn % 2 == 0 else (WITHOUT, WITH)
            for options in pair:
                found[options].append(measure(options, directory))
    fastest = 0.0
    for column, name in enumerate(("wall time", "CPU time")):
        times = [[one[column] * 1e3 for one in found[options]] for options in (WITH, WITHOUT)]
        paired = statistics.median(more - less for more, less in zip(*times, strict=True))
        fastest = min(times[0]) - min(times[1])
        print(f"{name}: {min(times[1]):.0f} ms without the plugin; with it {fastest:+.1f} ms (fastest of each)", end="")
        print(f", {paired:+.1f} ms (median of {rounds} pairs)")
    return 0 if fastest <= ALLOWED else 1


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
