"""Every step of a run of 60 steps as a resume point: does `--horizon next` say the same as `--horizon end`?

    python benchmarks/every_step.py [NAME ...]

For each set-up, a clean one and ten of the zoo's mutants made 60 steps long, prints the verdict of each resume point
under both horizons where they differ, and how many optimizer steps were executed. Where runs diverge, the cause is not
looked for: only the verdicts are compared, and confirming each of them takes more runs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

STEPS = 60

#: name of a build function -> what is built from the zoo.
SET_UPS = {
    "clean": "resumecheck.zoo.scheduler:scheduler_not_restored_twin",
    "scheduler_not_restored": "resumecheck.zoo.scheduler:scheduler_not_restored",
    "moments_rounded_to_bf16": "resumecheck.zoo.optimizer:moments_rounded_to_bf16",
    "optimizer_steps_start_at_zero": "resumecheck.zoo.optimizer:optimizer_steps_start_at_zero",
    "torch_stream_not_restored": "resumecheck.zoo.streams:torch_stream_not_restored",
    "streams_not_restored_at_epoch_boundary": "resumecheck.zoo.streams:streams_not_restored_at_epoch_boundary",
    "order_repeated_in_the_next_epoch": "resumecheck.zoo.order:order_repeated_in_the_next_epoch",
    "difficulty_starts_again": "resumecheck.zoo.content:difficulty_starts_again",
    "python_counter_in_model": "resumecheck.zoo.hidden:python_counter_in_model",
    "warm_restart_loses_its_place": "resumecheck.zoo.scheduler:warm_restart_loses_its_place",
    "plateau_count_not_restored": "resumecheck.zoo.scheduler:plateau_count_not_restored",
}


def _longer(path: str) -> Callable[[str], Any]:
    module, _, name = path.partition(":")

    def build(output_dir: str) -> Any:
        trainer = getattr(importlib.import_module(module), name)(output_dir)
        trainer.args.max_steps = STEPS
        return trainer

    return build


for _name, _path in SET_UPS.items():
    globals()[_name] = _longer(_path)


def main() -> int:
    """Check each set-up under both horizons; 1 where they do not agree."""
    from resumecheck.check import verify
    from resumecheck.diagnose.divergence import divergence_of
    from resumecheck.diagnose.point import Judge

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="set-ups to check (default: all)")
    names = parser.parse_args().names or list(SET_UPS)
    Judge._diagnose = lambda judge, point, resumed, expected, differences, effect, until: (divergence_of(effect), ())
    differing = 0
    for name in names:
        verdicts, executed, seconds = {}, {}, {}
        for horizon in ("next", "end"):
            started = time.monotonic()
            verdict = verify(f"{__file__}:{name}", steps=STEPS, at="every", horizon=horizon)
            seconds[horizon] = time.monotonic() - started
            executed[horizon] = verdict.steps_executed
            verdicts[horizon] = {point.step: point.verdict for point in verdict.resume_points}
        apart = [step for step, verdict in verdicts["end"].items() if verdicts["next"].get(step) != verdict]
        differing += len(apart)
        diverged = sum(verdict != "equivalent" for verdict in verdicts["end"].values())
        print(
            f"{name}: {len(verdicts['end'])} resume points, {diverged} diverged; the horizons disagree at "
            f"{apart or 'none'}; steps executed: next {executed['next']} ({executed['next'] / STEPS:.2f} N), "
            f"end {executed['end']} ({executed['end'] / STEPS:.2f} N); {seconds['next']:.0f} s and "
            f"{seconds['end']:.0f} s",
            flush=True,
        )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
