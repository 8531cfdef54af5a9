"""What the files of two runs of a command hold: which values differ, and which component they belong to.

A file is read as the checkpoint that it is (`checkpoints/values.py`), and by the words in its name and in the paths of
its values where no table knows it. Nothing is known of what a script writes beyond that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path

from resumecheck.checkpoints.values import read_file_values
from resumecheck.state.digest import digest

#: Files with tensors, and files with rows that were logged.
_STATE = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".json", ".pkl", ".tar")
_LOGGED = (".jsonl", ".csv", ".txt", ".log")
#: Files that describe a run and are no state of it.
_OF_THE_RUN = ("training_args.bin", "config.json", "tokenizer.json", "tokenizer_config.json")

#: Where a value lies: file, component, name.
Place = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class FileDifference:
    """A file that holds something else: the component, the first value that differs, and where all of them lie.

    `logged` says that it is no state: a row that was logged, a time, a path.
    """

    file: str
    component: str
    name: str
    expected: str | None
    got: str | None
    places: tuple[Place, ...] = ()
    logged: bool = False

    @property
    def words(self) -> str:
        """The difference in words."""
        others = f" (and {len(self.places) - 1} more)" if len(self.places) > 1 else ""
        return f"{self.file} {self.name}".strip() + f": expected {self.expected}, got {self.got}{others}"


def compare_outputs(
    expected: Path, got: Path, *, noise: Collection[Place] = (), told: Collection[str] = ()
) -> list[FileDifference]:
    """Files of two output directories that differ in a value, by name; a missing file is one too.

    Args:
        expected: the directory of the uninterrupted run.
        got: that of the other run.
        noise: places that two uninterrupted runs do not agree on, say a time of day.
        told: texts that the other run alone was given; a value that holds one differs for that reason.
    """
    names = {str(path.relative_to(root)) for root in (expected, got) for path in root.rglob("*") if path.is_file()}
    found: list[FileDifference] = []
    for name in sorted(names):
        if Path(name).name not in _OF_THE_RUN and Path(name).suffix in (*_STATE, *_LOGGED):
            found += _of_file(name, expected / name, got / name, noise, told)
    return found


def _of_file(
    name: str, expected: Path, got: Path, noise: Collection[Place], told: Collection[str]
) -> Iterator[FileDifference]:
    missing = [path for path in (expected, got) if not path.is_file()]
    if missing:
        place = (name, "checkpoint-files", "")
        before, now = ("a file" if path.is_file() else "none" for path in (expected, got))
        if place not in noise:
            yield FileDifference(name, place[1], "", before, now, (place,), logged=expected.suffix in _LOGGED)
        return
    if expected.read_bytes() == got.read_bytes():
        return
    pair = [_values(path) for path in (expected, got)]
    parts: dict[tuple[str, bool], list[tuple[Place, str | None, str | None]]] = {}
    for key in {**pair[0], **pair[1]}:
        before, now = pair[0].get(key), pair[1].get(key)
        place = (name, *key)
        texts = [side[0] if side is not None else None for side in (before, now)]
        if texts[0] == texts[1] or place in noise or any(word in (texts[1] or "") for word in told):
            continue
        state = any(side is not None and side[1] for side in (before, now))
        parts.setdefault((key[0], not state), []).append((place, texts[0], texts[1]))
    for (component, logged), differing in parts.items():
        first, *texts = differing[0]
        places = tuple(place for place, *_ in differing)
        yield FileDifference(name, component, first[2], *texts, places=places, logged=logged)


def _values(path: Path) -> dict[tuple[str, str], tuple[str, bool]]:
    """(component, name) -> the value as text, and whether a step of training can read it; lines of a text file."""
    if path.suffix in _LOGGED:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return {("counters", f"line {number}"): (line[:200], False) for number, line in enumerate(lines, start=1)}
    found: dict[tuple[str, str], tuple[str, bool]] = {}
    for (component, quantity, name), value in read_file_values(path).items():
        # An optimizer's own file names a value by its parameter, and what it is of it apart.
        shown = f"{name} {quantity}" if component.startswith("optimizer-") and quantity != path.name else name
        found[component, shown] = (digest(value.load()), value.effect)
    return found
