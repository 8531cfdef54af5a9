"""The record of a production run: a directory with a trajectory for each start, `segment-001`, `segment-002`, ..."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal

from resumecheck.errors import UsageError
from resumecheck.trajectory import UNFINISHED, NothingRecordedError, Row, Trajectory, read_trajectory, senseless_step

#: Facts of a segment that have facts in them.
_OBJECTS = ("arguments", "versions", "environment", "absent_files")
_NAME = re.compile(r"segment-(\d+)")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """One start of training as it was recorded; `run` is None where it recorded no step."""

    number: int
    facts: dict[str, Any]
    run: Trajectory | None
    torn: bool

    @property
    def saves(self) -> tuple[int, ...]:
        """The steps at which a checkpoint was saved."""
        rows = self.run.rows.values() if self.run is not None else ()
        return tuple(row.step for row in rows if save_event(row) is not None)

    @property
    def ended(self) -> Literal["finished", "stopped", "interrupted"]:
        """Whether training ended at its last step, by itself before that, or by a kill or an exception."""
        if self.run is None or self.facts.get("ended") != "by itself":
            return "interrupted"
        return "finished" if self.run.last_step == self.facts.get("max_steps") else "stopped"

    @property
    def last_whole_step(self) -> int:
        """The last step of which everything that follows it is recorded."""
        assert self.run is not None
        last = self.run.last_step
        return last - 1 if is_unfinished(self.run.rows[last]) else last


def save_event(row: Row) -> dict[str, Any] | None:
    """The last save after a step, None where there was none."""
    return next((event for event in reversed(row.events) if event["kind"] == "save"), None)


def is_unfinished(row: Row) -> bool:
    """Whether the process ended between the save after this step and the next one."""
    return any(event["kind"] == UNFINISHED for event in row.events)


def claim_segment(directory: Path) -> Path:
    """Make the directory of the next segment, which no other process gets."""
    directory.mkdir(parents=True, exist_ok=True)
    number = max((number for number, _path in _segments(directory)), default=0)
    while True:
        number += 1
        path = directory / f"segment-{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def read_record(directory: Path) -> list[Recorded]:
    """Every start of a recorded run, in order.

    Raises:
        UsageError: no record is there, or it is damaged, naming the file and the line.
    """
    try:
        segments = _segments(directory)
    except OSError as error:
        raise UsageError(f"{directory}: no recorded run is there ({error.strerror or error})") from error
    if not segments:
        hint = (
            f"it is one recorded run; give {directory.parent}"
            if _NAME.fullmatch(directory.resolve().name)
            else "a run is recorded with callbacks=[resumecheck.Recorder(directory)]"
        )
        raise UsageError(f"{directory}: expected the record of a production run, with segment-001 in it; {hint}")
    return [_read_segment(number, path) for number, path in segments]


def _segments(directory: Path) -> list[tuple[int, Path]]:
    found = [(_NAME.fullmatch(path.name), path) for path in directory.iterdir()]
    return sorted((int(name[1]), path) for name, path in found if name is not None and path.is_dir())


def _read_segment(number: int, path: Path) -> Recorded:
    try:
        facts_file = path / "run.json"
        facts = json.loads(facts_file.read_text(encoding="utf-8")) if facts_file.exists() else {}
        run = read_trajectory(path)
    except NothingRecordedError as nothing:
        return Recorded(number, facts, None, nothing.torn)
    except (ValueError, OSError) as error:
        if not (path / "run.json").exists() and not (path / "steps.jsonl").exists():
            return Recorded(number, {}, None, torn=False)  # the process ended while it was made
        raise UsageError(f"the record is damaged: {error}") from error
    strange = next((name for name in _OBJECTS if not isinstance(facts.get(name, {}), dict)), None)
    if strange is not None:
        raise UsageError(f"the record is damaged: {path / 'run.json'}: {strange!r} makes no sense")
    odd = senseless_step(run)
    if odd is not None:
        raise UsageError(f"the record is damaged: {path / 'steps.jsonl'}: the row of step {odd!r:.20} makes no sense")
    gap = next((step for step in range(run.first_step, run.last_step) if step not in run.rows), None)
    if gap is not None or list(run.rows) != sorted(run.rows):
        what = f"there is no row of step {gap}" if gap is not None else "its steps are not in order"
        raise UsageError(f"the record is damaged: {path / 'steps.jsonl'}: {what}")
    return Recorded(number, facts, run, run.torn)
