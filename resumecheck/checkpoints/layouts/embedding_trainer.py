"""The trainer of `resumecheck train`: its manifest vouches for every file, so what is whole is known exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from resumecheck.checkpoints.diagnosis import Problem
from resumecheck.checkpoints.layouts import transformers_trainer
from resumecheck.checkpoints.layouts.layout import Contents, Need, Piece, count, counts, mapping, quoted

MANIFEST = "manifest.json"


def _bears_marks(contents: Contents) -> bool:
    own, state = r"manifest\.json|embedding_config\.json", r"manifest\.json|trainer_state\.json|optimizer\.pt"
    return contents.has(own) and contents.has(state) and len(contents.matching(f"{own}|{state}")) > 1


def _problems(contents: Contents) -> Iterator[Problem]:
    yield from transformers_trainer.find_problems(contents)
    if contents.defects or not contents.has(r"trainer_state\.json"):
        return  # what is damaged is named already; the trainer's own test reads the files once more
    ranks = len(contents.matching(r"rng_state_\d+\.pth"))
    from resumecheck.embedding import checkpoint

    found = checkpoint.defect(contents.path, max(1, ranks))
    if found is not None:
        yield Problem("damaged", "", f"the trainer refuses it: {found}")


def _steps(contents: Contents) -> dict[str, int]:
    manifest = mapping(contents.values.get(MANIFEST))
    return transformers_trainer.find_steps(contents) | counts(**{MANIFEST: count(manifest.get("step"))})


def _resume(path: Path) -> str:
    return f"resumecheck train ... --resume_from_checkpoint {quoted(path)}"


LAYOUT = dataclasses.replace(
    transformers_trainer.LAYOUT,
    framework="resumecheck",
    marks=_bears_marks,
    pieces=(
        Piece(r"manifest\.json", ("checkpoint-files",), "size and digest of every file", "json"),
        *transformers_trainer.PIECES,
    ),
    needs=(
        *(
            dataclasses.replace(need, silent=False, why="the trainer refuses to resume")
            for need in transformers_trainer.NEEDS
        ),
        Need(MANIFEST, r"manifest\.json", ("checkpoint-files",), False, "the trainer refuses to resume"),
    ),
    steps=_steps,
    problems=_problems,
    losses=lambda contents: (),
    resume=_resume,
    instead=(
        "Give the checkpoint itself, or `latest` for the newest whole one in --output_dir. A new run from its weights "
        "alone is --init_from_checkpoint."
    ),
)
