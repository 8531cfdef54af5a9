"""From the texts of a batch to its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from resumecheck.embedding.dataset import Sample
from resumecheck.embedding.settings import EmbeddingSettings

Tokens = dict[str, torch.Tensor]


class Collator:
    """Makes `{"queries": tokens, "passages": tokens}`: [batch, length] and [batch * group, length], row by row."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: EmbeddingSettings, pad_to_multiple_of: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tokens]:
        """The tokens of a batch."""
        queries = [sample.query for sample in samples]
        passages = [passage for sample in samples for passage in sample.passages]
        return {
            "queries": self._tokens(queries, self.settings.query_max_len),
            "passages": self._tokens(passages, self.settings.passage_max_len),
        }

    def _tokens(self, texts: list[str], longest: int) -> Tokens:
        return tokenize(self.tokenizer, texts, longest, self.pad_to_multiple_of)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], longest: int, pad_to_multiple_of: int | None = None
) -> Tokens:
    """Tokens of the texts, cut at `longest` and padded to the longest among them."""
    encoded: Any = tokenizer(
        texts,
        max_length=longest,
        truncation=True,
        padding=True,
        pad_to_multiple_of=pad_to_multiple_of,
        return_tensors="pt",
    )
    return dict(encoded)
