"""In-context examples (BGE-EN-ICL): what stands before a query and after it.

    example query, suffix, its answer, an empty line    none to five times
    query, suffix

Queries have their instruction already; a passage stands alone. Source: Li et al., "Making Text Embedders Few-Shot
Learners", 2024.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.errors import UsageError

MOST_EXAMPLES = 5

#: Tokens of the longest query that examples leave to the query itself.
KEPT_FOR_QUERY = 512


EXAMPLES_HELP = (
    "examples before each query, for a model trained with them: a JSON list of objects with `query`, `response` and "
    "perhaps `instruct`, or a file with it"
)


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
    before = _before(tokenizer, settings, longest, examples)[0]
    return cut(tokenizer, before + query, longest - _taken(tokenizer, suffix)) + suffix


def _before(tokenizer: Any, settings: EmbeddingSettings, longest: int, examples: Iterable[Example]) -> tuple[str, int]:
    """What stands before a query, and how many of the examples are in it."""
    suffix, before, count = settings.query_suffix or "", "", 0
    for count, example in enumerate(examples, 1):
        parts = (
            cut(tokenizer, example.query, settings.example_query_max_len),
            cut(tokenizer, example.answer, settings.example_passage_max_len),
        )
        more = f"{before}{suffix.join(parts)}\n\n"
        if len(tokenizer(more)["input_ids"]) > longest - KEPT_FOR_QUERY:
            return before, count - 1
        before = more
    return before, count


def read_examples(given: str, tokenizer: Any, settings: EmbeddingSettings) -> tuple[Example, ...]:
    """The examples of `--examples_for_task`, which stand before every query in use as others do in training.

    Args:
        given: a JSON list of objects with `query`, `response` and perhaps `instruct`, or a file that holds one.
        tokenizer: of the model.
        settings: of the model.

    Raises:
        UsageError: they cannot be read, the model knows no examples, or not all of them fit.
    """
    option = "--examples_for_task"
    if settings.icl_suffix_str is None:
        raise UsageError(f"{option}: the model was trained without examples (--retrieval_use_examples); leave it out")
    try:
        found = json.loads(given if given.lstrip().startswith("[") else Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{option} {given}: no such file, and no JSON list") from error
    except ValueError as error:
        raise UsageError(f"{option}: not JSON ({error})") from error
    if not isinstance(found, list) or not found:
        raise UsageError(f"{option}: expected a list of at least one example")
    examples: list[Example] = []
    for number, entry in enumerate(found, 1):
        texts = [entry.get(name) for name in ("query", "response")] if isinstance(entry, dict) else [None]
        prompt = entry.get("instruct") if isinstance(entry, dict) else None
        if not all(isinstance(text, str) for text in (*texts, prompt or "")):
            raise UsageError(
                f"{option}: example {number}: expected texts as `query` and `response`, perhaps `instruct`"
            )
        examples.append(Example(settings.query_text(texts[0], prompt), texts[1]))
    fit = _before(tokenizer, settings, settings.query_max_len, examples)[1]
    if fit < len(examples):
        raise UsageError(
            f"{option}: {fit} of {len(examples)} examples fit, since {KEPT_FOR_QUERY} of the {settings.query_max_len} "
            "tokens of the longest query are left to the query itself\nGive fewer or shorter ones, or a longer query."
        )
    return tuple(examples)


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
