"""From the texts of a batch to its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from resumecheck.embedding.dataset import Sample
from resumecheck.embedding.in_context import Example, asked
from resumecheck.embedding.settings import EmbeddingSettings

Tokens = dict[str, torch.Tensor]


class Collator:
    """Makes the batch: texts row by row, and what the loss must know about the rows.

    `queries` are tokens of shape [batch, length] and `passages` [passages, length]; `group_sizes` [batch] tells how
    many passages belong to each query, its positive first; `own_group_only` [batch] marks the queries that have no
    other negatives; `teacher_scores` [passages] is there where a row has scores, with NaN for rows that have none.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: EmbeddingSettings, pad_to_multiple_of: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch of tensors."""
        queries = [self._asked(sample.query, self.settings.query_max_len, sample.examples) for sample in samples]
        passages = [
            self._asked(passage, self.settings.passage_max_len) if sample.passages_as_queries else passage
            for sample in samples
            for passage in sample.passages
        ]
        batch: dict[str, Any] = {
            "queries": self._tokens(queries, self.settings.query_max_len),
            "passages": self._tokens(passages, self.settings.passage_max_len),
            "group_sizes": torch.tensor([len(sample.passages) for sample in samples]),
            "own_group_only": torch.tensor([sample.own_group_only for sample in samples]),
        }
        if any(sample.teacher for sample in samples):
            scores = [sample.teacher or [math.nan] * len(sample.passages) for sample in samples]
            batch["teacher_scores"] = torch.tensor([score for row in scores for score in row], dtype=torch.float32)
        return batch

    def _asked(self, query: str, longest: int, examples: Sequence[Example] = ()) -> str:
        return asked(self.tokenizer, self.settings, query, longest, examples)

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
