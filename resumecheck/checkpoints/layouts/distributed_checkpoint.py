"""torch.distributed.checkpoint (DCP): `.metadata`, written last, says which piece of which tensor is in which file.

Source: torch 2.13.0, distributed/checkpoint/metadata.py and filesystem.py. A run may put anything into it:
what it holds is told by the names of its entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from resumecheck.checkpoints.diagnosis import Loss, Problem
from resumecheck.checkpoints.layouts.layout import MODEL, OPTIMIZER, RNG, Contents, Layout, Need, Piece, mapping
from resumecheck.checkpoints.reading.pickles import Call
from resumecheck.checkpoints.reading.torch_file import TorchFile

_TOLD_BY = {
    **dict.fromkeys(MODEL[:1], ("model", "weight", "module", "state_dict", "app")),
    "optimizer-moments": ("optim",),
    "lr-scheduler": ("sched",),
    "rng-torch": ("rng", "random"),
    "counters": ("step", "epoch", "train_state", "progress"),
    "data-position": ("dataloader", "loader", "sampler", "data_state"),
}


def _state(contents: Contents, field: str, folder: str = "") -> dict:
    file = contents.values.get(f"{folder}.metadata")
    call = file.value if isinstance(file, TorchFile) else None
    return mapping(mapping(call.state).get(field)) if isinstance(call, Call) else {}


def sharded_problems(contents: Contents) -> Iterator[Problem]:
    """Of the sharded directories in a checkpoint of another framework, such as FSDP's `optimizer_0`."""
    for name in contents.matching(r"[^/]+/\.metadata"):
        yield from shard_problems(contents, name.removesuffix(".metadata"))
    for name in contents.matching(r"[^/]+/[^/]*\.distcp"):
        metadata = f"{name.rpartition('/')[0]}/.metadata"
        if metadata not in contents.names:
            yield Problem("missing", metadata, f"{metadata} is missing: it is written last, the save was not finished")


def shard_problems(contents: Contents, folder: str = "") -> Iterator[Problem]:
    """Files that `.metadata` names and that are missing, cut off or somewhere else."""
    ends: dict[str, int] = {}
    for place in _state(contents, "storage_data", folder).values():
        facts = mapping(place.state) if isinstance(place, Call) else {}
        name, start, length = (facts.get(key) for key in ("relative_path", "offset", "length"))
        if isinstance(name, str) and type(start) is int and type(length) is int and 0 <= start + length < 2**63:
            ends[name] = max(ends.get(name, 0), start + length)
    sizes = {entry.name: entry.size for entry in contents.entries}
    for name, end in sorted(ends.items()):
        file, told = folder + name[:80], f"{folder}.metadata"
        if name.startswith("/") or ".." in name.split("/"):
            yield Problem("code", told, f"{told} names a file outside the checkpoint: {name[:80]!r}")
        elif folder + name not in sizes:
            yield Problem("missing", file, f"{file} is missing: {told} says that it holds {end} bytes of state")
        elif sizes[folder + name] < end:
            message = f"{file} is cut off: it has {sizes[folder + name]} bytes, {told} speaks of {end}"
            yield Problem("damaged", file, message)


def _losses(contents: Contents) -> Iterator[Loss]:
    names = [str(key).lower() for key in _state(contents, "state_dict_metadata")]
    if not names:
        return
    for component, words in _TOLD_BY.items():
        if not any(word in name for name in names for word in words):
            why = f"no entry of it by name ({', '.join(sorted({name.split('.')[0][:40] for name in names})[:5])})"
            yield Loss(component, "never saved", True, why)


def _resume(path: Path) -> str:
    return f"torch.distributed.checkpoint.load(state, checkpoint_id={str(path)!r})"


LAYOUT = Layout(
    framework="torch DCP",
    marks=lambda contents: contents.has(r"\.metadata|[^/]*\.distcp"),
    pieces=(
        Piece(r"\.metadata", (), "what is in which file", "torch", objects=True),
        Piece(r".*\.distcp", (*MODEL, *OPTIMIZER, *RNG), "a rank's share of the state, whatever the run put in"),
    ),
    needs=(
        Need(".metadata", r"\.metadata", ("checkpoint-files",), False, "it is written last: the save was not finished"),
        Need("*.distcp", r".*\.distcp", MODEL, False, "loading fails"),
    ),
    steps=lambda contents: {},
    resume=_resume,
    problems=shard_problems,
    losses=_losses,
    instead="It loads into the tensors you give: entries of your state that it lacks are an error, others are ignored.",
)
