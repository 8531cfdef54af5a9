"""Checkpoints that are complete or not there.

A checkpoint is written to a temporary directory, synced and renamed to `checkpoint-N`. Its manifest names every file
with size and digest, so one that is torn or altered is refused by name, and `latest` is the newest that is whole.
Nothing in a checkpoint is unpickled but plain state, even where its manifest vouches for it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
import xxhash
from transformers.trainer import safe_globals

from resumecheck.embedding import zero
from resumecheck.embedding.model import WEIGHTS_FILE
from resumecheck.errors import UsageError

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
LATEST = "latest"
_NAME = re.compile(r"checkpoint-(\d+)")
_STAGING, _RETIRED, _AFTER = ".saving-", ".retired-", ".after-"

#: What a resume needs -> what would be lost without it. The random streams are a file for each process.
_NEEDED = {
    WEIGHTS_FILE: "the weights",
    "optimizer.pt": "the optimizer",
    "scheduler.pt": "the learning rate",
    STATE: "step and epoch",
}

#: What `--allow_missing_state` may name -> the files that may then be missing.
OPTIONAL = {
    "optimizer": re.compile(r"optimizer\.pt"),
    "scheduler": re.compile(r"scheduler\.pt"),
    "rng": re.compile(r"rng_state(_\d+)?\.pth"),
}

#: Files that a loader would take for state: one of them that the manifest does not name was put there later.
_LOADABLE = (".pt", ".pth", ".bin", ".safetensors", ".pkl", ".pickle", ".ckpt")
#: Files that only a resume reads; a new run from the weights does without.
_TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler)\.pt|rng_state(_\d+)?\.pth|trainer_state\.json")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself.

    `data` is the fingerprint of the training data, `next_batch` the digest of the batch that comes after the step,
    `digest` that of the manifest with no digest in it.
    """

    step: int
    files: dict[str, dict[str, Any]]
    versions: dict[str, str]
    arguments: dict[str, Any]
    data: list[dict[str, str]]
    next_batch: str = ""
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


def record_of(final: Path) -> Path:
    """The file that tells of the step after the checkpoint `final`; it lies beside it."""
    return final.with_name(f"{_AFTER}{final.name}.json")


def leftovers(output_dir: Path) -> list[Path]:
    """What killed saves have left in an output directory; none of it is ever read."""
    records = [path for path in output_dir.glob(f"{_AFTER}*") if not _recorded(path).is_dir()]
    return [*output_dir.glob(f"{_STAGING}*"), *output_dir.glob(f"{_RETIRED}*"), *records]


def _recorded(record: Path) -> Path:
    return record.with_name(record.stem.removeprefix(_AFTER))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def open_stage(final: Path) -> None:
    """Make it, and remove what a killed save has left."""
    for left in leftovers(final.parent):
        _remove(left)
    stage(final).mkdir(parents=True)


def commit(
    final: Path,
    *,
    arguments: dict[str, Any],
    data: list[dict[str, str]],
    versions: dict[str, str],
    next_batch: str = "",
) -> None:
    """Write the manifest, sync everything and rename the temporary directory to `final`."""
    staging = stage(final)
    files = {name: _facts(staging / name) for name in _files(staging)}
    manifest = Manifest(step_of(final) or 0, files, versions, arguments, data, next_batch)
    manifest = dataclasses.replace(manifest, digest=xxhash.xxh3_128_hexdigest(manifest.text().encode()))
    (staging / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    for path in sorted(staging.rglob("*"), reverse=True):  # a directory after what is in it
        _sync(path)
    _sync(staging)
    if record_of(final).exists():  # of another run's step
        record_of(final).unlink()
        _sync(final.parent)
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
            record_of(path).unlink(missing_ok=True)
            shutil.rmtree(retired, ignore_errors=True)


def remove_all(output_dir: Path) -> None:
    """Remove the checkpoints of an earlier run."""
    for path in checkpoints_in(output_dir):
        shutil.rmtree(path)
    for left in leftovers(output_dir):
        _remove(left)


# --- reading --------------------------------------------------------------------------------------------------------


def find_checkpoint(given: str, output_dir: Path, world_size: int = 1, allowed: Collection[str] = ()) -> Path:
    """The checkpoint that `--resume_from_checkpoint GIVEN` means; `allowed` are keys of `OPTIONAL`.

    Raises:
        UsageError: it is not there, is not whole, or is not a checkpoint, naming what is missing and what to do.
    """
    if given == LATEST:
        found = newest_whole(output_dir, world_size, allowed)
        if found is None:
            broken = [f"{path.name}: {defect(path, world_size, allowed)}" for path in checkpoints_in(output_dir)]
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
    problem = defect(directory, world_size, allowed)
    if problem is not None:
        raise UsageError(
            f"--resume_from_checkpoint {given}: {problem}{_instead(directory.parent, world_size, besides=directory)}"
            f"\nTo start a new run from weights alone: --init_from_checkpoint {given}"
        )
    return directory


def newest_whole(output_dir: Path, world_size: int = 1, allowed: Collection[str] = ()) -> Path | None:
    """The newest checkpoint of an output directory that can be resumed from."""
    whole = (path for path in reversed(checkpoints_in(output_dir)) if defect(path, world_size, allowed) is None)
    return next(whole, None)


def defect(directory: Path, world_size: int = 1, allowed: Collection[str] = ()) -> str | None:
    """Why nothing can be resumed from this directory; None where it is whole."""
    streams = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    needed = {**_NEEDED, **dict.fromkeys(streams, f"the random streams of {world_size} process(es)")}
    if under_deepspeed(directory):
        del needed["optimizer.pt"]  # the manifest says which files are in its place
    for name, lost in needed.items():
        if not (directory / name).is_file() and not _may_miss(name, allowed):
            return f"{name} is missing, without it {lost} cannot be restored"
    if not (directory / MANIFEST).is_file():
        return f"{MANIFEST} is missing: not a checkpoint of this trainer, or one that was not finished"
    try:
        manifest = read_manifest(directory)
        present = [name for name in _files(directory) if name in needed or name.endswith(_LOADABLE)]
        for name in present:
            if name not in manifest.files:
                return f"{name} is not in {MANIFEST}: it was not written with this checkpoint"
        missing = [name for name in manifest.files if not (directory / name).is_file()]
        return _altered(directory, manifest, [name for name in missing if not _may_miss(name, allowed)])
    except _ManifestError as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or directory).name} cannot be read ({error.strerror})"


def under_deepspeed(directory: Path) -> bool:
    """Whether the checkpoint is that of a run under DeepSpeed, which has files of its own for the optimizer."""
    try:
        return zero.wrote(read_manifest(directory).files)
    except (_ManifestError, OSError):
        return False


def weights_defect(directory: Path) -> str | None:
    """Why no new run can start from the weights of this checkpoint, None where it can or is not a checkpoint."""
    if not (directory / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(directory)
        files = {
            name: facts
            for name, facts in manifest.files.items()
            if not (_TRAINING_STATE.fullmatch(name) or zero.FILES.fullmatch(name))
        }
        missing = [name for name in files if not (directory / name).is_file()]
        return _altered(directory, dataclasses.replace(manifest, files=files), missing)
    except _ManifestError as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or directory).name} cannot be read ({error.strerror})"


def _altered(directory: Path, manifest: Manifest, missing: list[str]) -> str | None:
    """What is no longer as the manifest says."""
    if missing:
        return f"{missing[0]} is missing"
    if step_of(directory) not in (None, manifest.step):
        return f"{MANIFEST} is that of step {manifest.step}, not of this checkpoint"
    paths = {name: directory / name for name in manifest.files if (directory / name).is_file()}
    different = [name for name, path in paths.items() if _facts(path) != manifest.files[name]]
    if different:
        name = different[0]
        sizes = paths[name].stat().st_size, manifest.files[name]["size"]
        how = f"has {sizes[0]} bytes, {sizes[1]} were written"
        others = f" (and {len(different) - 1} more; or {MANIFEST} is another checkpoint's)" if different[1:] else ""
        return f"{name} {how if sizes[0] != sizes[1] else 'is not the file that was written'}{others}"
    return next((found for path in paths.values() if (found := _unusable(path, manifest.step)) is not None), None)


def _unusable(path: Path, step: int) -> str | None:
    """Why a file that is as it was written still cannot be used: a manifest can be written to vouch for anything."""
    try:
        if path.parent.name.startswith("global_step"):
            if not zero.holds_plain_state(path):
                raise ValueError
        elif path.suffix in (".pt", ".pth"):
            # Not read but mapped. Anything but plain state raises here, before a line of its code runs.
            with safe_globals():
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        elif path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as weights:
                weights.keys()
        elif path.name == STATE:
            found = json.loads(path.read_text(encoding="utf-8"))["global_step"]
            if found != step:
                return f"{STATE} is that of step {found}, not of step {step}"
    except Exception:  # which one depends on where the file stops making sense; that it can be read is known
        return f"{path.name} holds something else than plain state; it was not loaded, and no code in it was run"
    return None


def missing_state(directory: Path, world_size: int = 1) -> set[str]:
    """The keys of `OPTIONAL` whose files a checkpoint lacks."""
    wanted = {"optimizer": 0 if under_deepspeed(directory) else 1, "scheduler": 1, "rng": world_size}
    names = [path.name for path in directory.iterdir()]
    return {
        kind for kind, count in wanted.items() if sum(bool(OPTIONAL[kind].fullmatch(name)) for name in names) < count
    }


def _may_miss(name: str, allowed: Collection[str]) -> bool:
    return any(OPTIONAL[kind].fullmatch(name) for kind in allowed)


class _ManifestError(ValueError):
    """A manifest that cannot be read, or is not the one that was written."""


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint; ValueError where it is not one."""
    try:
        text = (directory / MANIFEST).read_text(encoding="utf-8")
        manifest = Manifest(**json.loads(text))
        digest = xxhash.xxh3_128_hexdigest(text.replace(manifest.digest, "").encode())
        entries = all({"size", "xxh3_128"} <= facts.keys() for facts in manifest.files.values())
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _ManifestError(f"{MANIFEST} cannot be read") from error
    if manifest.digest != digest or not entries:
        raise _ManifestError(f"{MANIFEST} cannot be read: it is not the file that was written")
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
