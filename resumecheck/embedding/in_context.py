"""In-context examples (BGE-EN-ICL): what stands before a query and after it.

    example query, suffix, its answer, an empty line    none to five times
    query, suffix

Queries have their instruction already; a passage stands alone. Source: Li et al., "Making Text Embedders Few-Shot
Learners", 2024.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.errors import UsageError

MOST_EXAMPLES = 5

#: Tokens of the longest query that examples leave to the query itself.
KEPT_FOR_QUERY = 512


class Example(NamedTuple):
    """A query, with its instruction, and its answer."""

    query: str
    answer: str


def asked(
    tokenizer: Any, settings: EmbeddingSettings, query: str, longest: int, examples: Iterable[Example] = ()
) -> str:
    """The query as the model sees it: examples before it, the suffix after it, in `longest` tokens.

    Examples that do not fit are left out, from the first of them on. Where there is no suffix the query stays as it is.
    """
    suffix = settings.query_suffix
    if suffix is None:
        return query
    before = ""
    for example in examples:
        parts = (
            cut(tokenizer, example.query, settings.example_query_max_len),
            cut(tokenizer, example.answer, settings.example_passage_max_len),
        )
        more = f"{before}{suffix.join(parts)}\n\n"
        if len(tokenizer(more)["input_ids"]) > longest - KEPT_FOR_QUERY:
            break
        before = more
    return cut(tokenizer, before + query, longest - _taken(tokenizer, suffix)) + suffix


def cut(tokenizer: Any, text: str, longest: int) -> str:
    """The text up to its `longest`-th token."""
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(tokens) <= longest else tokenizer.decode(tokens[:longest])


def check_room(tokenizer: Any, settings: EmbeddingSettings) -> None:
    """Whether there is room for a query beside the suffix.

    Raises:
        UsageError: naming the option.
    """
    suffix = settings.query_suffix
    for name in ("query_max_len", "passage_max_len"):  # passages of symmetric data are queries too
        longest = getattr(settings, name)
        if suffix is not None and longest <= (taken := _taken(tokenizer, suffix)):
            raise UsageError(
                f"--{name} {longest}: --icl_suffix_str and the tokens around a text are {taken} tokens, so nothing of "
                f"it would be left; give --{name} {taken + 1} or more"
            )


def _taken(tokenizer: Any, suffix: str) -> int:
    return len(tokenizer(suffix)["input_ids"])  # with the tokens that the tokenizer puts around a text
