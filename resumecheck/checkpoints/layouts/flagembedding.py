"""FlagEmbedding's fine-tuner: a `transformers.Trainer` whose own parts do not come back.

Source: FlagEmbedding 1.4.2 (`AbsDataset.py`, `AbsTrainer.py`, `modeling.py`), run under transformers 5.23.0; its
issue 1034.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from resumecheck.checkpoints.diagnosis import Loss
from resumecheck.checkpoints.layouts import transformers_trainer
from resumecheck.checkpoints.layouts.layout import MODEL, Contents, Piece, quoted


def _bears_marks(contents: Contents) -> bool:
    name, state = transformers_trainer.arguments_of(contents)
    return name.startswith("FlagEmbedding.") or {"same_dataset_within_batch", "negatives_cross_device"} <= state.keys()


def _losses(contents: Contents) -> Iterator[Loss]:
    why = (
        "saved without the `model.` of the wrapper that is trained: loading finds none of its names, and ends in an "
        "AttributeError (_keys_to_ignore_on_save) or, where that is patched, in a warning"
    )
    if not contents.has(r"adapter_model\.safetensors"):
        yield from (Loss(component, "not restored", False, why) for component in MODEL)
    if transformers_trainer.arguments_of(contents)[1].get("same_dataset_within_batch") is True:
        why = "with same_dataset_within_batch the data set counts its own steps, from 0 after a resume"
        yield Loss("data-position", "not restored", True, why)
    why = "negatives are drawn from a global stream while batches are fetched, before the streams are put back"
    yield Loss("data-content", "not restored", True, why)
    yield from transformers_trainer.find_losses(contents)


def _resume(path: Path) -> str:
    return f"the command of the run, with --resume_from_checkpoint {quoted(path)}"


LAYOUT = dataclasses.replace(
    transformers_trainer.LAYOUT,
    framework="FlagEmbedding",
    marks=_bears_marks,
    pieces=(
        Piece(r"(colbert|sparse)_linear\.pt", MODEL, "the heads of M3", "torch"),
        *transformers_trainer.PIECES,
    ),
    losses=_losses,
    resume=_resume,
    instead=(
        "Keep --model_name_or_path as it was. A checkpoint given there starts a new run from its weights, at step 0; a "
        "directory above the checkpoint given to --resume_from_checkpoint is no checkpoint."
    ),
)
