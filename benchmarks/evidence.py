"""How often the check is wrong on random set-ups: false alarms on clean ones, misses on mutated ones.

Draws set-ups by Hypothesis, checks each, and holds every verdict on a mutated one against plain runs, which decide
without the check whether the mutation changes the run. Prints what was covered and each mistake in full.

    python -m benchmarks.evidence [--clean 300] [--mutated 300] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import platform
import sys
import time

from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis.strategies import SearchStrategy

from resumecheck.check import Workbench
from resumecheck.runs.worker import versions
from resumecheck.strategies import MUTATIONS, Setup, setups
from tests.properties.judge import Judged, judge
from tests.properties.plain_runs import PlainRuns

STARTED = time.perf_counter()
#: A workbench keeps the records of all its runs until it is closed.
SETUPS_PER_WORKBENCH = 20


def main() -> int:
    """Draw, check, print; the exit status is 1 where there was a mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=int, default=300, help="clean set-ups (default: %(default)s)")
    parser.add_argument("--mutated", type=int, default=300, help="mutated set-ups (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    options = parser.parse_args()
    print(f"python -m benchmarks.evidence {' '.join(sys.argv[1:])}".rstrip())
    print(", ".join(f"{name} {version}" for name, version in versions().items()), f"on {platform.system()}", flush=True)
    plain_runs = PlainRuns()
    collector = Collector(plain_runs)
    clean: list[Judged] = []
    mutated: list[Judged] = []
    try:
        clean = collector.collect(setups(), options.clean, options.seed)
        print(f"the clean set-ups took {time.perf_counter() - STARTED:.0f} s", flush=True)
        for place, name in enumerate(MUTATIONS):
            # Each mutation gets its share, the first ones what remains.
            share = options.mutated // len(MUTATIONS) + (place < options.mutated % len(MUTATIONS))
            mutated += collector.collect(setups(mutations=[name]), share, options.seed + place)
    finally:
        collector.close()
        plain_runs.close()
    print(f"everything took {time.perf_counter() - STARTED:.0f} s")
    if clean:
        report_clean(clean)
    if mutated:
        report_mutated(mutated)
    mistakes = [judged for judged in (*clean, *mutated) if judged.mistake]
    print(f"\nmistakes: {len(mistakes)}")
    for judged in mistakes:
        print(f"\n{judged.explanation}")
    return 1 if mistakes else 0


class Collector:
    """Judges drawn set-ups, whatever comes out, with a fresh workbench now and then."""

    def __init__(self, plain_runs: PlainRuns) -> None:
        self.plain_runs = plain_runs
        self.bench: Workbench | None = None
        self.judged = 0

    def collect(self, strategy: SearchStrategy[Setup], number: int, chosen: int) -> list[Judged]:
        """Judge that many different set-ups, drawn by the seed `chosen`."""
        found: list[Judged] = []
        seen: set[Setup] = set()
        if not number:
            return found

        @seed(chosen)
        @settings(
            max_examples=number,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def check(setup: Setup) -> None:
            assume(setup not in seen)
            seen.add(setup)
            found.append(judge(self.next_bench(), self.plain_runs, setup))
            if found[-1].mistake:
                print(f"{found[-1].mistake}: {setup!r}", flush=True)

        check()
        return found

    def next_bench(self) -> Workbench:
        """The workbench for the next set-up."""
        if self.bench is not None and self.judged % SETUPS_PER_WORKBENCH == 0:
            self.close()
            print(f"{self.judged} set-ups judged after {time.perf_counter() - STARTED:.0f} s", flush=True)
        if self.bench is None:
            self.bench = Workbench()
        self.judged += 1
        return self.bench

    def close(self) -> None:
        """End the workbench."""
        if self.bench is not None:
            self.bench.close()
            self.bench = None


def report_clean(found: list[Judged]) -> None:
    """What was covered."""
    points = sum(len(judged.outcomes) for judged in found)
    alarms = sum(judged.mistake != "" for judged in found)
    print(f"\nclean set-ups: {len(found)}, all different, with {points} resume points")
    print(f"clean set-ups that were blamed: {alarms}")
    coverage(found)


def report_mutated(found: list[Judged]) -> None:
    """What was covered, and per mutation what it changes in plain runs and whether the verdict is right, by points."""
    points = sum(len(judged.outcomes) for judged in found)
    print(f"\nmutated set-ups: {len(found)}, all different, with {points} resume points")
    rows: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in MUTATIONS}
    for judged in found:
        row = rows[judged.setup.mutation]
        row["set-ups"] += 1
        for step, outcome in judged.outcomes.items():
            changes = (judged.differs or {}).get(step)
            right = outcome == ("diverged" if changes else "equivalent")
            row[
                "not judged" if judged.differs is None else f"{changes or 'nothing'}: {'right' if right else 'wrong'}"
            ] += 1
    kinds = ("a step", "what was loaded", "nothing")
    columns = [f"{kind}: {judgement}" for kind in kinds for judgement in ("right", "wrong")] + ["not judged"]
    print("\n| mutation | set-ups | " + " | ".join(columns) + " |")
    print("| --- |" + " --- |" * (1 + len(columns)))
    for name, row in rows.items():
        print(f"| {name} | {row['set-ups']} | " + " | ".join(str(row[column]) for column in columns) + " |")
    total = [sum(row[column] for row in rows.values()) for column in columns]
    print(f"| all | {len(found)} | " + " | ".join(str(number) for number in total) + " |")
    coverage(found)


def coverage(found: list[Judged]) -> None:
    """How many set-ups had each value of each field."""
    print("\n| option | set-ups with each value |")
    print("| --- | --- |")
    for field in dataclasses.fields(found[0].setup):
        if field.name in ("mutation", "at"):
            continue
        counts = collections.Counter(getattr(judged.setup, field.name) for judged in found)
        shown = ", ".join(f"{value} {count}" for value, count in sorted(counts.items(), key=lambda item: str(item[0])))
        print(f"| {field.name} | {shown} |")
    where = collections.Counter(
        "at an epoch's end" if step % judged.setup.steps_per_epoch == 0 else "inside an epoch"
        for judged in found
        for step in judged.outcomes
    )
    print(f"| resume points | {', '.join(f'{place} {count}' for place, count in where.items())} |")


if __name__ == "__main__":
    raise SystemExit(main())
