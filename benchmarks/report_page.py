"""Size and time of the HTML report of a check of 200 steps, and what a check pays for being able to make one.

    python benchmarks/report_page.py

The target is the classifier of tests/examples/masked_words.py, trained for 200 steps and resumed from three points,
once with its mistake and once mended.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resumecheck.check import Workbench
from resumecheck.report.checked import Checked
from resumecheck.report.page import page

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "examples"))

REPEATS = 7


def build(output_dir: str) -> Any:
    """The target that loses its stream of masks."""
    return _longer(output_dir, "build")


def build_keyed(output_dir: str) -> Any:
    """The target that loses nothing."""
    return _longer(output_dir, "build_keyed")


def _longer(output_dir: str, name: str) -> Any:
    import masked_words

    trainer = getattr(masked_words, name)(output_dir)
    trainer.args.num_train_epochs = 40
    trainer.args.disable_tqdm = True
    return trainer


def fastest(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the fastest of some repetitions, and the last result."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def main() -> None:
    """Check both targets and print a line for each."""
    with Workbench() as workbench:
        for name in ("build", "build_keyed"):
            start = time.perf_counter()
            verdict = workbench.verify(f"{__file__}:{name}", steps=200, at=[50, 100, 150])
            checking = time.perf_counter() - start
            gathering, evidence = fastest(workbench.evidence)
            writing, text = fastest(functools.partial(page, [Checked(verdict, evidence)]))
            print(
                f"{name}: {verdict.verdict}; check {checking:.1f} s; evidence {gathering * 1e3:.0f} ms; "
                f"page {writing * 1e3:.0f} ms, {len(text.encode()) / 1e3:.0f} kB"
            )


if __name__ == "__main__":
    main()
