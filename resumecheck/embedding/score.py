"""`resumecheck score`: the scores of a reranker for the passages of training data, to be learnt from (distillation)."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from resumecheck.embedding.arguments import check_template
from resumecheck.embedding.command import run_command
from resumecheck.embedding.in_context import cut
from resumecheck.embedding.jsonl import output_path, read_objects, write_objects
from resumecheck.embedding.lora import is_decoder
from resumecheck.embedding.model import load_tokenizer, longest_input
from resumecheck.embedding.settings import joined
from resumecheck.errors import UsageError

#: Tokens of a query and its passage, where the model has positions for as many.
_LONGEST = 512


def _option(help_text: str, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass
class ScoreArguments:
    """Options of `resumecheck score`, named as FlagEmbedding's `add_reranker_score` names them."""

    input_file: str = _option("JSONL file with `query`, `pos` and perhaps `neg`")
    output_file: str = _option("file to write: the same rows with `pos_scores` and `neg_scores`")
    reranker_name_or_path: str = _option("a cross-encoder: a model of sequence classification with one output")
    reranker_batch_size: int = _option("pairs scored at a time", 64)
    reranker_max_length: int | None = _option(
        "longest pair in tokens; the passage is cut (default: 512, or what the model has positions for)", None
    )
    reranker_query_max_length: int | None = _option(
        "longest query in tokens (default: three quarters of the longest pair)", None
    )
    query_instruction_for_rerank: str | None = _option("text put before each query", None)
    query_instruction_format_for_rerank: str = _option("how instruction and query are joined", "{}{}")
    passage_instruction_for_rerank: str | None = _option("text put before each passage", None)
    passage_instruction_format_for_rerank: str = _option("how instruction and passage are joined", "{}{}")
    normalize: bool = _option("scores from 0 to 1 (the sigmoid of the output)", False)
    trust_remote_code: bool = _option("run the code that comes with the model", False)
    cache_dir: str | None = _option("where downloaded models are kept", None)


@dataclasses.dataclass(frozen=True)
class Reranker:
    """A cross-encoder, and the most tokens of a pair and of the query in it."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    longest: int
    longest_query: int


def main(argv: Sequence[str] | None = None) -> int:
    """Score as the options say; returns the exit status, 2 for wrong usage with one message on stderr."""

    def run(options: ScoreArguments) -> None:
        path = output_path("output_file", options.output_file)
        write_objects(path, score(options))

    return run_command("score", ScoreArguments, run, argv)


def score(options: ScoreArguments) -> list[dict[str, Any]]:
    """The rows of the input with a score for each passage; the rest of a row stays as it is.

    Raises:
        UsageError: an option, a file or the model cannot be used.
    """
    if options.reranker_batch_size < 1:
        raise UsageError(f"--reranker_batch_size {options.reranker_batch_size}: expected 1 or more")
    for name in ("query_instruction_format_for_rerank", "passage_instruction_format_for_rerank"):
        check_template(name, getattr(options, name))
    rows = read_objects("input_file", options.input_file, {"query": str, "pos": list})
    reranker = load_reranker(options)
    pairs = {(row["query"], text): 0.0 for row in rows for field in ("pos", "neg") for text in row.get(field) or ()}
    texts = [_texts(options, query, passage) for query, passage in pairs]
    scores = score_pairs(reranker, texts, batch_size=options.reranker_batch_size, normalize=options.normalize)
    for pair, value in zip(pairs, scores, strict=True):
        if not math.isfinite(value):
            raise UsageError(
                f"--reranker_name_or_path {options.reranker_name_or_path}: its score is {value}, expected a "
                f"number, for a passage of the query {pair[0][:60]!r}"
            )
        pairs[pair] = value
    for row in rows:
        for field in ("pos", "neg"):
            row[f"{field}_scores"] = [pairs[row["query"], text] for text in row.get(field) or ()]
    return rows


@torch.inference_mode()
def score_pairs(
    reranker: Reranker, pairs: Sequence[tuple[str, str]], *, batch_size: int, normalize: bool = False
) -> list[float]:
    """The score of each (query, passage), in float32.

    Batches are of pairs of like length. The same pairs and batch size give the same scores to the last bit on a device;
    with another batch size, or among other pairs, a score differs by what rounding differs between shapes of a batch.
    """
    from rich.console import Console
    from rich.progress import track

    model, tokenizer = reranker.model, reranker.tokenizer
    encoded: list[dict[str, list[int]]] = []
    for query, passage in pairs:
        found: Any = tokenizer(
            cut(tokenizer, query, reranker.longest_query),
            passage,
            truncation="only_second",
            max_length=reranker.longest,
        )
        encoded.append(dict(found))
    order = sorted(range(len(pairs)), key=lambda place: -len(encoded[place]["input_ids"]))
    scores = [0.0] * len(pairs)
    console = Console(stderr=True)
    starts = range(0, len(order), batch_size)
    for start in track(starts, "scoring", console=console, transient=True, disable=not console.is_terminal):
        batch = order[start : start + batch_size]
        tokens = tokenizer.pad([encoded[place] for place in batch], return_tensors="pt").to(model.device)
        for place, value in zip(batch, model(**tokens).logits.float()[:, 0].tolist(), strict=True):
            scores[place] = value
    # In float64 and back, so that it does not matter where a score stands in the tensor.
    return torch.tensor(scores, dtype=torch.float64).sigmoid().float().tolist() if normalize else scores


def load_reranker(options: ScoreArguments) -> Reranker:
    """The cross-encoder, in float32, on a GPU where there is one.

    Raises:
        UsageError: it cannot be loaded, has no head or not one output, or does not take texts of the given lengths.
    """
    source = options.reranker_name_or_path
    given = {"cache_dir": options.cache_dir, "trust_remote_code": options.trust_remote_code}
    try:
        model, facts = AutoModelForSequenceClassification.from_pretrained(source, output_loading_info=True, **given)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"--reranker_name_or_path {source}: no model could be loaded: {reason}") from error
    if facts["missing_keys"]:
        raise UsageError(
            f"--reranker_name_or_path {source}: no reranker: it has no weights for {sorted(facts['missing_keys'])[0]}"
        )
    if model.config.num_labels != 1:
        raise UsageError(f"--reranker_name_or_path {source}: expected one output, it has {model.config.num_labels}")
    if is_decoder(model.config) and model.config.pad_token_id is None:
        raise UsageError(
            f"--reranker_name_or_path {source}: its configuration has no `pad_token_id`, by which a decoder finds the "
            "end of a text in a batch; add it"
        )
    tokenizer = load_tokenizer(source, **given)
    positions = longest_input(model.base_model)
    longest = min(_LONGEST, positions or _LONGEST)
    if options.reranker_max_length is not None:
        longest = options.reranker_max_length
    if positions is not None and longest > positions:
        raise UsageError(f"--reranker_max_length {longest}: the model has positions for {positions} tokens")
    longest_query = longest * 3 // 4
    if options.reranker_query_max_length is not None:
        longest_query = options.reranker_query_max_length
    around = tokenizer.num_special_tokens_to_add(pair=True)
    if longest_query < 1:
        raise UsageError(f"--reranker_query_max_length {longest_query}: expected 1 or more")
    if longest_query + around >= longest:
        raise UsageError(
            f"--reranker_max_length {longest}: a query of {longest_query} tokens and {around} of the tokenizer leave "
            "nothing for the passage; give more, or a smaller --reranker_query_max_length"
        )
    model.eval().float().to("cuda" if torch.cuda.is_available() else "cpu")
    return Reranker(model, tokenizer, longest, longest_query)


def _texts(options: ScoreArguments, query: str, passage: str) -> tuple[str, str]:
    asked, told = options.query_instruction_for_rerank, options.passage_instruction_for_rerank
    return (
        query if asked is None else joined(options.query_instruction_format_for_rerank, asked, query),
        passage if told is None else joined(options.passage_instruction_format_for_rerank, told, passage),
    )


if __name__ == "__main__":
    sys.exit(main())
