"""`SentenceTransformerTrainer`: a `transformers.Trainer` that saves the model in its own layout, and not the loss.

Source: sentence-transformers 6.2.0, base/trainer.py (`_save`, `_load_from_checkpoint`); issues 27, 189, 783.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from resumecheck.checkpoints.diagnosis import Loss
from resumecheck.checkpoints.layouts import transformers_trainer
from resumecheck.checkpoints.layouts.layout import Contents, Piece


def _bears_marks(contents: Contents) -> bool:
    return contents.has(r"modules\.json") and (
        contents.has(r"trainer_state\.json|training_args\.bin|optimizer\.pt")
        or transformers_trainer.NAME.fullmatch(contents.path.name) is not None
    )


def _losses(contents: Contents) -> Iterator[Loss]:
    found = list(transformers_trainer.find_losses(contents))
    if not any(loss.component == "loss-parameters" for loss in found):
        why = "only the model is saved: parameters that the loss itself trains start anew, where it has any"
        yield Loss("loss-parameters", "never saved", True, why)
    yield from found


LAYOUT = dataclasses.replace(
    transformers_trainer.LAYOUT,
    framework="sentence-transformers",
    marks=_bears_marks,
    pieces=(
        Piece(r"modules\.json", (), "the modules of the model"),
        Piece(r"(config_sentence_transformers|[^/]+/config)\.json", (), "configuration", "json"),
        *transformers_trainer.PIECES,
    ),
    losses=_losses,
)
