"""`resumecheck mine`: hard negatives, drawn from the passages that a model ranks next to a query."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Any

import torch

from resumecheck.embedding import draws
from resumecheck.embedding.arguments import check_template
from resumecheck.embedding.command import run_command
from resumecheck.embedding.embedder import Embedder, load_embedder
from resumecheck.embedding.in_context import EXAMPLES_HELP
from resumecheck.embedding.jsonl import output_path, read_objects, write_objects
from resumecheck.embedding.settings import POOLING_METHODS
from resumecheck.errors import UsageError

_AS_RECORDED = "(default: as the model's directory says)"

#: Options -> the settings of a model that they take the place of.
_SETTINGS = {
    "normalize_embeddings": "normalize_embeddings",
    "pooling_method": "sentence_pooling_method",
    "query_instruction_for_retrieval": "query_instruction_for_retrieval",
    "query_instruction_format_for_retrieval": "query_instruction_format",
    "embedder_query_max_length": "query_max_len",
    "embedder_passage_max_length": "passage_max_len",
}

#: What the draws of this command are for; no purpose of training has this number.
_MINED = 100


def _option(help_text: str, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclasses.dataclass
class MineArguments:
    """Options of `resumecheck mine`, named as FlagEmbedding's `hn_mine` names them."""

    embedder_name_or_path: str = _option("directory of the model, or a checkpoint")
    input_file: str = _option("JSONL file with `query` and `pos`; `neg`, where it is there, is replaced")
    output_file: str = _option("file to write: the same rows with `neg`")
    candidate_pool: str | None = _option("JSONL file with `text` (default: all passages of the input)", None)
    range_for_sampling: str = _option("ranks that negatives are drawn from, for example 10-210", "10-210")
    negative_number: int = _option("negatives to a row", 15)
    batch_size: int = _option("texts encoded at a time", 64)
    search_batch_size: int = _option("queries searched at a time", 64)
    use_gpu_for_searching: bool = _option("search on the GPU; the search is exact on either", False)
    normalize_embeddings: bool | None = _option(f"scale embeddings to length one {_AS_RECORDED}", None)
    pooling_method: str | None = dataclasses.field(
        default=None,
        metadata={"help": f"how token vectors become one {_AS_RECORDED}", "choices": list(POOLING_METHODS)},
    )
    query_instruction_for_retrieval: str | None = _option(f"text put before each query {_AS_RECORDED}", None)
    query_instruction_format_for_retrieval: str | None = _option(
        f"how instruction and query are joined {_AS_RECORDED}", None
    )
    examples_for_task: str | None = _option(EXAMPLES_HELP, None)
    embedder_query_max_length: int | None = _option(f"longest query in tokens {_AS_RECORDED}", None)
    embedder_passage_max_length: int | None = _option(f"longest passage in tokens {_AS_RECORDED}", None)
    seed: int = _option("of the draws", 42)


def main(argv: Sequence[str] | None = None) -> int:
    """Mine as the options say; returns the exit status, 2 for wrong usage with one message on stderr."""

    def run(options: MineArguments) -> None:
        path = output_path("output_file", options.output_file)
        write_objects(path, mine(options))

    return run_command("mine", MineArguments, run, argv)


def mine(options: MineArguments) -> list[dict[str, Any]]:
    """The rows of the input with new negatives.

    A candidate is no negative where it is the query or one of its positives. Where the ranks hold fewer than are asked
    for, the rest is drawn from all candidates, as FlagEmbedding does. The search is exact; rounding decides only
    between passages that are as near as each other at an end of the range.

    Raises:
        UsageError: an option, a file or the model cannot be used.
    """
    lengths = ("embedder_query_max_length", "embedder_passage_max_length")
    for name in ("negative_number", "batch_size", "search_batch_size", *lengths):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UsageError(f"--{name} {getattr(options, name)}: expected 1 or more")
    template = options.query_instruction_format_for_retrieval
    if template is not None:
        check_template("query_instruction_format_for_retrieval", template)
    if options.use_gpu_for_searching and not torch.cuda.is_available():
        raise UsageError("--use_gpu_for_searching: there is no GPU; leave the option out")
    first, last = _range(options.range_for_sampling)
    rows = read_objects("input_file", options.input_file, {"query": str, "pos": list})
    if options.candidate_pool is None:
        texts = [text for row in rows for text in (*row["pos"], *(row.get("neg") or ()))]
    else:
        texts = [row["text"] for row in read_objects("candidate_pool", options.candidate_pool, {"text": str})]
    candidates = list(dict.fromkeys(texts))
    embedder = _embedder(options)
    queries = embedder.queries([row["query"] for row in rows], batch_size=options.batch_size)
    passages = embedder.passages(candidates, batch_size=options.batch_size)
    device = "cuda" if options.use_gpu_for_searching else "cpu"
    queries, passages = queries.to(device), passages.to(device)
    depth = min(last, len(candidates))
    for start in range(0, len(rows), options.search_batch_size):
        places = (queries[start : start + options.search_batch_size] @ passages.T).topk(depth, dim=1).indices
        for number, ranked in enumerate(places.tolist(), start):
            row = rows[number]
            barred = {row["query"], *row["pos"]}
            # In the order of the pool: neighbours in rank change places by rounding, and must not change the draw.
            near = [candidates[place] for place in sorted(ranked[first:]) if candidates[place] not in barred]
            row["neg"] = _drawn(near, options, number, 0)
            if len(row["neg"]) < options.negative_number:
                barred |= set(row["neg"])
                others = [text for text in candidates if text not in barred]
                row["neg"] += _drawn(others, options, number, 1)[: options.negative_number - len(row["neg"])]
            row.pop("neg_scores", None)  # they were of other negatives
    return rows


def _embedder(options: MineArguments) -> Embedder:
    given = {setting: getattr(options, name) for name, setting in _SETTINGS.items()}
    try:
        return load_embedder(options.embedder_name_or_path, options.examples_for_task, **given)
    except UsageError as error:
        message = str(error)
        for name, setting in {**_SETTINGS, "embedder_name_or_path": "model_name_or_path"}.items():
            message = message.replace(f"--{setting} ", f"--{name} ")  # what it is called here
        raise UsageError(message) from error


def _drawn(texts: list[str], options: MineArguments, row: int, turn: int) -> list[str]:
    order = draws.permutation(len(texts), seed=options.seed, purpose=_MINED, epoch=turn, row=row)
    return [texts[place] for place in order[: options.negative_number]]


def _range(given: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)-(\d+)", given)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"--range_for_sampling {given}: expected two ranks, the lower first, for example 10-210")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    sys.exit(main())
