"""A check that is under way, on standard error: bars where a person watches, plain lines in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

#: The check calls it, from several threads: name of the run, optimizer steps done, the step it stops at (0: unknown).
ProgressFunction = Callable[[str, int, int], None]

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_display(console: Console, unit: str = "step") -> Generator[ProgressFunction]:
    """Show the runs of a check on `console` until the block ends; `unit` is what is counted."""
    if not console.is_terminal:
        yield PlainLines(console.file, unit=unit)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress)


class PlainLines:
    """One line when a run starts, one at most every few seconds while it trains, one when it is done."""

    def __init__(self, file: IO[str], clock: Callable[[], float] = time.monotonic, unit: str = "step") -> None:
        self._file = file
        self._unit = unit
        self._clock = clock
        self._lock = threading.Lock()
        self._next_line: dict[str, float] = {}
        self._done: set[str] = set()

    def __call__(self, run: str, step: int, total: int) -> None:
        """Report that `run` has done `step` of `total` optimizer steps."""
        with self._lock:
            now = self._clock()
            done = 0 < total <= step
            if run in self._done or (not done and now < self._next_line.get(run, now)):
                return
            self._next_line[run] = now + SECONDS_BETWEEN_LINES
            if done:
                self._done.add(run)
            print(
                f"resumecheck: {run}: {self._unit} {step}{f' of {total}' if total else ''}", file=self._file, flush=True
            )


class _Bars:
    """One bar for each run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._starting: TaskID | None = progress.add_task("starting", total=None)
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, run: str, step: int, total: int) -> None:
        with self._lock:
            if self._starting is not None:
                self._progress.remove_task(self._starting)
                self._starting = None
            if run not in self._tasks:
                self._tasks[run] = self._progress.add_task(run, total=total or None)
        self._progress.update(self._tasks[run], completed=step, total=total or None)
