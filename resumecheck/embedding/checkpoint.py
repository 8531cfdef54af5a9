"""Checkpoints that are complete or not there.

A checkpoint is written to a temporary directory, synced and renamed to `checkpoint-N`. Its manifest names every file
with size and digest, so one that is torn or altered is refused by name, and `latest` is the newest that is whole.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from resumecheck.embedding.model import WEIGHTS_FILE
from resumecheck.errors import UsageError

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
LATEST = "latest"
_NAME = re.compile(r"checkpoint-(\d+)")
_STAGING, _RETIRED = ".saving-", ".retired-"

#: What a resume needs -> what would be lost without it. The random streams are a file for each process.
_NEEDED = {
    WEIGHTS_FILE: "the weights",
    "optimizer.pt": "the optimizer",
    "scheduler.pt": "the learning rate",
    STATE: "step and epoch",
}


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself.

    `data` is the fingerprint of the training data, `digest` that of the manifest with no digest in it.
    """

    step: int
    files: dict[str, dict[str, Any]]
    versions: dict[str, str]
    arguments: dict[str, Any]
    data: list[dict[str, str]]
    schema: int = 1
    digest: str = ""

    def text(self) -> str:
        """The content of its file."""
        return json.dumps(dataclasses.asdict(self), indent=1, default=str) + "\n"


def step_of(directory: Path) -> int | None:
    """N of a directory `checkpoint-N`, None for any other name."""
    match = _NAME.fullmatch(directory.name)
    return int(match[1]) if match else None


def checkpoints_in(output_dir: Path) -> list[Path]:
    """The checkpoints of an output directory, whole or not, in order of step."""
    if not output_dir.is_dir():
        return []
    found = [path for path in output_dir.iterdir() if path.is_dir() and step_of(path) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def is_checkpoint(directory: str | Path) -> bool:
    """Whether the directory is a checkpoint of a run, as opposed to a finished model."""
    return (Path(directory) / STATE).is_file() or (Path(directory) / MANIFEST).is_file()


# --- writing --------------------------------------------------------------------------------------------------------


def stage(final: Path) -> Path:
    """The temporary directory of the checkpoint `final`."""
    return final.with_name(_STAGING + final.name)


def open_stage(final: Path) -> None:
    """Make it, and remove what a killed save has left."""
    for left in [*final.parent.glob(f"{_STAGING}*"), *final.parent.glob(f"{_RETIRED}*")]:
        shutil.rmtree(left, ignore_errors=True)
    stage(final).mkdir(parents=True)


def commit(final: Path, *, arguments: dict[str, Any], data: list[dict[str, str]], versions: dict[str, str]) -> None:
    """Write the manifest, sync everything and rename the temporary directory to `final`."""
    staging = stage(final)
    files = {name: _facts(staging / name) for name in _files(staging)}
    manifest = Manifest(step_of(final) or 0, files, versions, arguments, data)
    manifest = dataclasses.replace(manifest, digest=xxhash.xxh3_128_hexdigest(manifest.text().encode()))
    (staging / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    for name in [*files, MANIFEST, "."]:
        _sync(staging / name)
    if final.exists():
        retired = final.with_name(_RETIRED + final.name)
        final.rename(retired)
        staging.rename(final)
        shutil.rmtree(retired, ignore_errors=True)
    else:
        staging.rename(final)
    _sync(final.parent)


def rotate(saved: Path, limit: int | None) -> None:
    """Keep `saved` and the newest beside it, `limit` in all.

    A run that was resumed from an earlier step may have later checkpoints beside it, perhaps torn ones.
    """
    if limit and limit > 0:
        others = [path for path in checkpoints_in(saved.parent) if path != saved]
        for path in others[: len(others) + 1 - limit] if len(others) >= limit else ():
            retired = path.with_name(_RETIRED + path.name)  # a kill in the middle leaves no half of a checkpoint
            path.rename(retired)
            shutil.rmtree(retired, ignore_errors=True)


def remove_all(output_dir: Path) -> None:
    """Remove the checkpoints of an earlier run."""
    for path in [*checkpoints_in(output_dir), *output_dir.glob(f"{_STAGING}*"), *output_dir.glob(f"{_RETIRED}*")]:
        shutil.rmtree(path)


# --- reading --------------------------------------------------------------------------------------------------------


def find_checkpoint(given: str, output_dir: Path, world_size: int = 1) -> Path:
    """The checkpoint that `--resume_from_checkpoint GIVEN` means.

    Raises:
        UsageError: it is not there, is not whole, or is not a checkpoint, naming what is missing and what to do.
    """
    if given == LATEST:
        found = newest_whole(output_dir, world_size)
        if found is None:
            broken = [f"{path.name}: {defect(path, world_size)}" for path in checkpoints_in(output_dir)]
            raise UsageError(
                f"--resume_from_checkpoint latest: {output_dir} holds no complete checkpoint"
                + (f" ({'; '.join(broken[-2:])})" if broken else "")
                + "\nLeave the option out to start the run from its beginning."
            )
        return found
    directory = Path(given)
    if not directory.is_dir():
        raise UsageError(f"--resume_from_checkpoint {given}: no such directory{_instead(directory.parent, world_size)}")
    if checkpoints_in(directory) and not is_checkpoint(directory):
        raise UsageError(
            f"--resume_from_checkpoint {given}: this is an output directory, not a checkpoint"
            f"{_instead(directory, world_size)}"
        )
    problem = defect(directory, world_size)
    if problem is not None:
        raise UsageError(
            f"--resume_from_checkpoint {given}: {problem}{_instead(directory.parent, world_size, besides=directory)}"
            f"\nTo start a new run from weights alone: --init_from_checkpoint {given}"
        )
    return directory


def newest_whole(output_dir: Path, world_size: int = 1) -> Path | None:
    """The newest checkpoint of an output directory that can be resumed from."""
    whole = (path for path in reversed(checkpoints_in(output_dir)) if defect(path, world_size) is None)
    return next(whole, None)


def defect(directory: Path, world_size: int = 1) -> str | None:
    """Why nothing can be resumed from this directory; None where it is whole."""
    streams = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    needed = {**_NEEDED, **dict.fromkeys(streams, f"the random streams of {world_size} process(es)")}
    for name, lost in needed.items():
        if not (directory / name).is_file():
            return f"{name} is missing, without it {lost} cannot be restored"
    if not (directory / MANIFEST).is_file():
        return f"{MANIFEST} is missing: not a checkpoint of this trainer, or one that was not finished"
    try:
        files = read_manifest(directory).files
    except (ValueError, TypeError):
        return f"{MANIFEST} cannot be read"
    for name in needed:
        if name not in files:
            return f"{name} is not in {MANIFEST}: it was not written with this checkpoint"
    for name, recorded in files.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != recorded["size"]:
            return f"{name} has {path.stat().st_size} bytes, {recorded['size']} were written"
        if _facts(path) != recorded:
            return f"{name} is not the file that was written"
    return None


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint; ValueError or TypeError where it is not one."""
    text = (directory / MANIFEST).read_text(encoding="utf-8")
    manifest = Manifest(**json.loads(text))
    if manifest.digest != xxhash.xxh3_128_hexdigest(text.replace(manifest.digest, "").encode()):
        raise ValueError(f"{directory / MANIFEST} is not the file that was written")
    return manifest


def check_data(directory: Path, data: list[dict[str, str]]) -> None:
    """Whether the run goes on with the data it was started with.

    Raises:
        UsageError: naming the first file that differs.
    """
    before = read_manifest(directory).data
    for old, new in zip(before, data, strict=False):
        if old != new:
            what = "has changed since" if old["name"] == new["name"] else f"takes the place of {old['name']}"
            raise UsageError(_changed(directory, f"{new['name']} {what}"))
    if len(before) != len(data):
        raise UsageError(
            _changed(directory, f"the run was started with {len(before)} file(s), now there are {len(data)}")
        )


def _changed(directory: Path, what: str) -> str:
    return (
        f"--train_data: {what}, so a resumed run would not be the same run\n"
        f"Give the data of the run, or start a new one from its weights: --init_from_checkpoint {directory}"
    )


def _instead(output_dir: Path, world_size: int, besides: Path | None = None) -> str:
    found = newest_whole(output_dir, world_size)
    if found is None or found == besides:
        return f"\nThere is no complete checkpoint in {output_dir}."
    return f"\nThe newest complete checkpoint there: --resume_from_checkpoint {found}"


def _files(directory: Path) -> Iterator[str]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix()


def _facts(path: Path) -> dict[str, Any]:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return {"size": path.stat().st_size, "xxh3_128": digest.hexdigest()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
