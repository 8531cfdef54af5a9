"""`doctor(path)`: what a checkpoint or an output directory holds, what is missing, what a resume would lose.

1. Find the checkpoints at the path. 2. List the files of each. 3. Recognise the framework by its marks. 4. Read each
file as its table says, without unpickling anything. 5. Say what is missing, damaged or contradictory, and what that
loses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from resumecheck.checkpoints.diagnosis import Cause, Checkpoint, Diagnosis, File, Loss, Problem
from resumecheck.checkpoints.layouts import LAYOUTS, lightning, transformers_trainer
from resumecheck.checkpoints.layouts.layout import Contents, Layout, Piece
from resumecheck.checkpoints.reading.files import Entry, Unreadable, file_entry, list_files
from resumecheck.checkpoints.reading.json_file import read_json
from resumecheck.checkpoints.reading.pickles import code_in, objects_in
from resumecheck.checkpoints.reading.safetensors_file import read_header
from resumecheck.checkpoints.reading.torch_file import TorchFile, read_torch_file
from resumecheck.errors import UsageError
from resumecheck.state.components import ORDER

MOST_CHECKPOINTS = 1_000
#: What a killed save leaves beside the checkpoints.
_LEFTOVER = re.compile(r"\.saving-.*|\.retired-.*|tmp-checkpoint-.*")
_CHECKPOINT_NAME = re.compile(r"checkpoint[-_]\d{1,15}|global_step\d{1,15}")
#: Files that are looked into although no table names them.
_OTHER_PIECES = (
    Piece(r".*\.(pt|pth|bin|pkl|pickle|ckpt)", (), "not known here", "torch", objects=True),
    Piece(r".*\.safetensors", (), "tensors, not known here", "safetensors"),
    Piece(r".*", (), "no training state"),
)
_READERS = {"torch": read_torch_file, "json": read_json, "safetensors": read_header}


def doctor(path: str | os.PathLike[str]) -> Diagnosis:
    """Look at a checkpoint or at an output directory. Nothing in it is loaded, and no code in it is run.

    Args:
        path: a checkpoint of transformers, sentence-transformers, FlagEmbedding, accelerate, DeepSpeed, torch DCP,
            Lightning (a file) or `resumecheck train`, or a directory that holds such.

    Raises:
        UsageError: there is nothing at the path, or it is a file of another kind.

    Example:
        >>> diagnosis = resumecheck.doctor("out/checkpoint-500")  # doctest: +SKIP
        >>> [loss.component for loss in diagnosis.checkpoints[0].losses]  # doctest: +SKIP
        ['rng-python', 'rng-numpy', 'rng-torch', 'rng-cuda', 'hidden-state']
    """
    given, path = str(path), Path(path)
    try:
        path.stat()
        is_file, is_directory = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{given!r} cannot be looked at ({reason}); give a checkpoint or an output directory"
        ) from error
    if not is_directory:
        if not is_file or path.suffix != ".ckpt":
            raise UsageError(f"{given!r} is not a directory; give a checkpoint, an output directory, or a file .ckpt")
        return _one(given, "checkpoint", _examine(open_checkpoint(path), lightning.LAYOUT), lightning.LAYOUT)
    inside, remarks = _checkpoints_below(path)
    hf = [child for child in inside if transformers_trainer.NAME.fullmatch(child.name)]
    opened = open_checkpoint(path, frozenset(child.name for child in hf))
    own = None if hf else find_layout(opened)
    if own is not None:
        return _one(given, "checkpoint", _examine(opened, own), own)
    if inside:
        return _several(given, path, hf or inside, remarks)
    if opened.has(r"[^/]*\.safetensors|(pytorch_model|adapter_model)[^/]*\.bin"):
        found = _examine(opened, transformers_trainer.LAYOUT)
        return Diagnosis(given, "model", found.framework, (found,), None, _NOTHING_TO_RESUME)
    advice = "No checkpoint of a framework that is known here is in it; give a checkpoint or an output directory."
    return Diagnosis(given, "unknown", "unknown", (), None, advice, (*remarks, *_leftovers(path)))


_NOTHING_TO_RESUME = (
    "Nothing can be resumed from here: these are weights without training state. A run that is given them as its "
    "model starts at step 0; resume from a checkpoint of the run instead."
)


# --- finding checkpoints --------------------------------------------------------------------------------------------


def _checkpoints_below(path: Path) -> tuple[list[Path], list[str]]:
    """What looks like a checkpoint in a directory or in its `checkpoints/`."""
    found: list[Path] = []
    for directory in (path, path / "checkpoints"):
        for child in _children(directory):
            if child.is_dir():
                if child != path / "checkpoints" and (_CHECKPOINT_NAME.fullmatch(child.name) or _holds_shards(child)):
                    found.append(child)
            elif child.suffix == ".ckpt":
                found.append(child)
    remarks = []
    if len(found) > MOST_CHECKPOINTS:
        remarks = [f"{len(found)} checkpoints: only {MOST_CHECKPOINTS} were looked at"]
    return sorted(found, key=_number)[-MOST_CHECKPOINTS:], remarks


def _children(directory: Path) -> Iterator[Path]:
    try:
        with os.scandir(directory) as scan:
            for count, item in enumerate(scan):
                if count >= 20 * MOST_CHECKPOINTS:
                    return
                yield directory / item.name
    except OSError:
        return


def _holds_shards(directory: Path) -> bool:
    """Whether a directory of any name is a checkpoint of torch DCP, DeepSpeed or accelerate."""
    pattern = re.compile(r"\.metadata|.*\.distcp|random_states_\d+\.pkl|.*mp_rank_\d+_(model|optim)_states\.pt")
    return any(pattern.fullmatch(child.name) for child in _children(directory))


def _number(path: Path) -> tuple[int, str]:
    numbers = re.findall(r"\d{1,15}", path.stem)
    return (int(numbers[-1]) if numbers else -1, path.name)


def open_checkpoint(path: Path, leave_out: frozenset[str] = frozenset()) -> Contents:
    """The files of a checkpoint, with only the arguments read: they tell frameworks apart."""
    if path.is_dir():
        entries, remarks = list_files(path, leave_out)
    else:
        entries, remarks = [file_entry(path, path.name)], []
    contents = Contents(path, tuple(entries), {}, {}, tuple(remarks))
    for entry in entries:
        if entry.name == transformers_trainer.ARGUMENTS and not entry.defect:
            read_file(contents, entry, Piece("", (), "", "torch", objects=True))
    return contents


def find_layout(contents: Contents) -> Layout | None:
    """The framework that a checkpoint is of, None where no mark is known."""
    return next((layout for layout in LAYOUTS if layout.marks(contents)), None)


def find_piece(layout: Layout, name: str) -> Piece:
    """What a file is."""
    return next(piece for piece in (*layout.pieces, *_OTHER_PIECES) if re.fullmatch(piece.pattern, name, re.DOTALL))


# --- one checkpoint -------------------------------------------------------------------------------------------------


def _examine(contents: Contents, layout: Layout) -> Checkpoint:
    files = tuple(_file(contents, layout, entry) for entry in contents.entries)
    problems: list[Problem] = []
    losses: list[Loss] = []
    for need in layout.needs:
        if not contents.has(need.patterns):
            losses += [Loss(component, "missing", need.silent, need.why) for component in need.loses]
            if not need.optional:
                problems.append(Problem("missing", need.name, f"{need.name} is missing: {need.why}"))
    for file in files:
        if file.state in ("damaged", "code"):
            kind = "code" if file.state == "code" else "damaged"
            problems.append(Problem(kind, file.name, f"{file.name} {file.remark}"))
            why = f"{file.name} {file.remark}"
            losses += [Loss(component, "damaged", False, why) for component in file.holds]
    problems += layout.problems(contents)
    losses += layout.losses(contents)
    steps = layout.steps(contents)
    return Checkpoint(
        path=str(contents.path),
        framework=layout.framework,
        step=agreed_step(steps),
        steps=steps,
        files=files,
        problems=tuple(dict.fromkeys(problems)),
        losses=_in_order(losses),
        remarks=(*contents.remarks, *layout.remarks(contents), *_links(contents)),
        resume=layout.resume(contents.path),
        whole=not problems,
    )


def _file(contents: Contents, layout: Layout, entry: Entry) -> File:
    piece = find_piece(layout, entry.name)
    if piece.format != "none" and not entry.defect and entry.name not in contents.values:
        read_file(contents, entry, piece)
    defect = contents.defects.get(entry.name, entry.defect)
    if not defect and piece.format != "none":
        return File(entry.name, entry.size, piece.holds, piece.what, "whole", _objects(contents, entry.name, piece))
    state = "unread"
    if defect and (piece.format != "none" or piece.holds):
        state = "code" if defect.startswith(_WOULD_RUN) else "damaged"
        contents.defects[entry.name] = defect
    return File(entry.name, entry.size, piece.holds, piece.what, state, defect)


_WOULD_RUN = "would run code when it is loaded"


def read_file(contents: Contents, entry: Entry, piece: Piece) -> None:
    """Read a file into `values`, or say in `defects` why not."""
    path = contents.path / entry.name if contents.path.is_dir() else contents.path
    try:
        value: Any = _READERS[piece.format](path)
    except Unreadable as error:
        contents.defects[entry.name] = str(error)
        return
    if isinstance(value, TorchFile):
        code, objects = code_in(value.pickle), objects_in(value.pickle)
        if code:
            contents.defects[entry.name] = f"{_WOULD_RUN} ({', '.join(code[:3])}); it was not loaded"
            return
        if objects and not piece.objects:
            found = ", ".join(objects[:3])
            contents.defects[entry.name] = (
                f"holds objects ({found}) where plain state belongs, which weights_only refuses"
            )
            return
    contents.values[entry.name] = value


def _objects(contents: Contents, name: str, piece: Piece) -> str:
    """Which modules' code runs when a pickle of objects is loaded."""
    value = contents.values.get(name)
    if not piece.objects or not isinstance(value, TorchFile):
        return ""
    packages = sorted({each.partition(".")[0] for each in objects_in(value.pickle)})
    return f"a pickle of objects: loading it imports {', '.join(packages[:4])}" if packages else ""


def _links(contents: Contents) -> Iterator[str]:
    for entry in contents.entries:
        if entry.link and not entry.defect:
            try:
                inside = (contents.path / entry.name).resolve().is_relative_to(contents.path.resolve())
            except (OSError, RuntimeError):
                inside = False
            if not inside:
                yield f"{entry.name} is a link to a file outside the checkpoint: {entry.link[:200]}"


def agreed_step(steps: dict[str, int]) -> int | None:
    """The step of a checkpoint: of the counts that were found, the one that a resume goes by."""
    for source in (transformers_trainer.STATE, "global_step", "model states", "name"):
        if source in steps:
            return steps[source]
    return next(iter(steps.values()), None)


def _in_order(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """In causal order; each component once, with what can be mended first."""
    rank: dict[Cause, int] = {"damaged": 0, "missing": 1, "not restored": 2, "never saved": 3}
    first: dict[str, Loss] = {}
    for loss in sorted(losses, key=lambda loss: rank[loss.cause]):
        first.setdefault(loss.component, loss)
    return tuple(sorted(first.values(), key=lambda loss: ORDER[loss.component]))


# --- the answer -----------------------------------------------------------------------------------------------------


def _one(given: str, kind: Any, found: Checkpoint, layout: Layout) -> Diagnosis:
    if found.whole:
        advice = f"{found.resume}\n{layout.instead}"
        return Diagnosis(given, kind, found.framework, (found,), found.path, advice)
    beside = _newest_whole_beside(Path(found.path), layout)
    other = (
        f"take the newest whole one beside it: {layout.resume(beside)}" if beside else "there is no whole one beside it"
    )
    return Diagnosis(given, kind, found.framework, (found,), None, f"Mend it first, or {other}\n{layout.instead}")


def _newest_whole_beside(path: Path, layout: Layout) -> Path | None:
    """Of the ten newest siblings."""
    siblings = [other for other in _checkpoints_below(path.parent)[0] if other.name != path.name]
    whole = (other for other in reversed(siblings[-10:]) if _examine(open_checkpoint(other), layout).whole)
    return next(whole, None)


def _several(given: str, path: Path, inside: Sequence[Path], remarks: Sequence[str]) -> Diagnosis:
    opened = [open_checkpoint(child) for child in inside]
    layouts = [find_layout(contents) or transformers_trainer.LAYOUT for contents in opened]
    # A checkpoint that has lost the file that tells its framework is of the same framework as its siblings.
    special = next((layout for layout in layouts if layout in LAYOUTS[:3]), None)
    if special is not None:
        layouts = [special if layout is transformers_trainer.LAYOUT else layout for layout in layouts]
    found = [_examine(contents, layout) for contents, layout in zip(opened, layouts, strict=True)]
    order = sorted(range(len(found)), key=lambda index: (found[index].step or -1, _number(inside[index])))
    found, layouts = [found[index] for index in order], [layouts[index] for index in order]
    whole = [index for index, checkpoint in enumerate(found) if checkpoint.whole]
    told = [*remarks, *_leftovers(path)]
    if not whole:
        advice = "None of the checkpoints is whole: mend one, or start the run from its beginning."
        return Diagnosis(given, "output directory", layouts[-1].framework, tuple(found), None, advice, tuple(told))
    newest = found[whole[-1]]
    if whole[-1] != len(found) - 1 and layouts[-1] in LAYOUTS[1:4]:
        told.append(f"resume_from_checkpoint=True takes {Path(found[-1].path).name}, which is not whole")
    advice = f"{newest.resume}\n{layouts[whole[-1]].instead}"
    return Diagnosis(given, "output directory", newest.framework, tuple(found), newest.path, advice, tuple(told))


def _leftovers(path: Path) -> list[str]:
    names = sorted(child.name for child in _children(path) if _LEFTOVER.fullmatch(child.name))
    return [f"left by a save that was killed, and never read: {', '.join(names[:5])}"] if names else []
