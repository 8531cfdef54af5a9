"""A trained model in use: encoder, tokenizer, and the settings that its directory records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from resumecheck.embedding.in_context import Example, asked, read_examples
from resumecheck.embedding.model import BiEncoder, check_lengths, encode, load_encoder, load_tokenizer, longest_input
from resumecheck.embedding.settings import EmbeddingSettings, read_settings


@dataclasses.dataclass(frozen=True)
class Embedder:
    """Embeds texts as they come, with the instructions of its settings."""

    model: BiEncoder
    tokenizer: PreTrainedTokenizerBase
    settings: EmbeddingSettings
    #: They stand before every query.
    examples: tuple[Example, ...] = ()

    def queries(self, texts: Sequence[str], *, batch_size: int) -> torch.Tensor:
        """The embeddings [len(texts), dim] of queries."""
        longest = self.settings.query_max_len
        queries = [
            asked(self.tokenizer, self.settings, self.settings.query_text(text), longest, self.examples)
            for text in texts
        ]
        return self._encode(queries, longest, batch_size)

    def passages(self, texts: Sequence[str], *, batch_size: int) -> torch.Tensor:
        """The embeddings [len(texts), dim] of passages."""
        longest = self.settings.passage_max_len
        return self._encode([self.settings.passage_text(text) for text in texts], longest, batch_size)

    def _encode(self, texts: list[str], longest: int, batch_size: int) -> torch.Tensor:
        return encode(self.model, self.tokenizer, texts, longest=longest, batch_size=batch_size)


def load_embedder(source: str, examples: str | None = None, **given: Any) -> Embedder:
    """The model of a directory or hub name, on a GPU where there is one.

    Args:
        source: directory or name.
        examples: what `--examples_for_task` says.
        given: settings in place of the recorded ones, None for those that nobody gave. A recorded length is cut to
            what the model has positions for.

    Raises:
        UsageError: the model cannot be loaded, or a given length or the examples do not fit it.
    """
    encoder = load_encoder(source)
    recorded = read_settings(source)
    longest = longest_input(encoder)
    if longest is not None:
        lengths = {name: min(getattr(recorded, name), longest) for name in ("query_max_len", "passage_max_len")}
        recorded = dataclasses.replace(recorded, **lengths)
    settings = dataclasses.replace(recorded, **{name: value for name, value in given.items() if value is not None})
    check_lengths(encoder, settings)
    model = BiEncoder(encoder, pooling=settings.sentence_pooling_method, normalize=settings.normalize_embeddings)
    tokenizer = load_tokenizer(source)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    shown = () if examples is None else read_examples(examples, tokenizer, settings)
    return Embedder(model, tokenizer, settings, shown)
