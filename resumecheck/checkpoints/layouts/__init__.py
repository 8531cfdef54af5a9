"""The frameworks, most particular first: the first whose marks a directory bears has written it."""

from __future__ import annotations

from resumecheck.checkpoints.layouts import (
    accelerate_state,
    deepspeed,
    distributed_checkpoint,
    embedding_trainer,
    flagembedding,
    lightning,
    sentence_transformers,
    transformers_trainer,
)
from resumecheck.checkpoints.layouts.layout import Layout

LAYOUTS: tuple[Layout, ...] = (
    embedding_trainer.LAYOUT,
    flagembedding.LAYOUT,
    sentence_transformers.LAYOUT,
    transformers_trainer.LAYOUT,
    accelerate_state.LAYOUT,
    deepspeed.LAYOUT,
    distributed_checkpoint.LAYOUT,
    lightning.LAYOUT,
)
