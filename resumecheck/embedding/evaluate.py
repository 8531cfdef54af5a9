"""`resumecheck evaluate`: nDCG, MRR and recall of an embedding model on a retrieval collection (BEIR layout)."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ir_measures
import torch
from ir_measures import RR, R, nDCG

from resumecheck.embedding.command import run_command
from resumecheck.embedding.embedder import load_embedder
from resumecheck.embedding.in_context import EXAMPLES_HELP
from resumecheck.embedding.jsonl import read_lines, read_values
from resumecheck.embedding.settings import POOLING_METHODS, EmbeddingSettings
from resumecheck.errors import UsageError

MEASURES = {"nDCG@10": nDCG @ 10, "MRR": RR, "recall@100": R @ 100}

#: Passages ranked for each query; no measure looks further.
DEPTH = 1000


@dataclasses.dataclass
class EvaluateArguments:
    """Options of `resumecheck evaluate`; what is not given is as the model's directory says."""

    model_name_or_path: str = dataclasses.field(metadata={"help": "directory of the model, or a checkpoint"})
    corpus: str = dataclasses.field(metadata={"help": "JSONL file with `_id`, `text` and perhaps `title`"})
    queries: str = dataclasses.field(metadata={"help": "JSONL file with `_id` and `text`"})
    qrels: str = dataclasses.field(metadata={"help": "TSV file: query id, passage id, grade; with a header"})
    json: str | None = dataclasses.field(default=None, metadata={"help": "write the figures to this file"})
    batch_size: int = dataclasses.field(default=64, metadata={"help": "texts encoded at a time"})
    sentence_pooling_method: str | None = dataclasses.field(
        default=None, metadata={"help": "how token vectors become one vector", "choices": list(POOLING_METHODS)}
    )
    normalize_embeddings: bool | None = dataclasses.field(
        default=None, metadata={"help": "scale embeddings to length one"}
    )
    query_max_len: int | None = dataclasses.field(default=None, metadata={"help": "longest query in tokens"})
    passage_max_len: int | None = dataclasses.field(default=None, metadata={"help": "longest passage in tokens"})
    query_instruction_for_retrieval: str | None = dataclasses.field(
        default=None, metadata={"help": "text put before each query"}
    )
    passage_instruction_for_retrieval: str | None = dataclasses.field(
        default=None, metadata={"help": "text put before each passage"}
    )
    examples_for_task: str | None = dataclasses.field(default=None, metadata={"help": EXAMPLES_HELP})


@dataclasses.dataclass(frozen=True)
class Collection:
    """A retrieval collection: texts by id, and the grade of each judged (query, passage)."""

    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the options say; returns the exit status, 2 for wrong usage with one message on stderr."""
    return run_command("evaluate", EvaluateArguments, _run, argv)


def _run(options: EvaluateArguments) -> None:
    for name in ("batch_size", "query_max_len", "passage_max_len"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UsageError(f"--{name} {getattr(options, name)}: expected 1 or more")
    collection = read_collection(options.corpus, options.queries, options.qrels)
    figures = evaluate(options, collection)
    if options.json is not None:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    _print(figures)


def evaluate(options: EvaluateArguments, collection: Collection) -> dict[str, Any]:
    """The measures over the judged queries, with the sizes of the collection.

    Raises:
        UsageError: the model cannot be loaded.
    """
    source = options.model_name_or_path
    names = [field.name for field in dataclasses.fields(EmbeddingSettings)]
    embedder = load_embedder(
        source, options.examples_for_task, **{name: getattr(options, name, None) for name in names}
    )
    judged = [query for query in collection.queries if query in collection.qrels]
    vectors = embedder.passages(list(collection.corpus.values()), batch_size=options.batch_size)
    asked = embedder.queries([collection.queries[query] for query in judged], batch_size=options.batch_size)
    run = rank(judged, asked, list(collection.corpus), vectors)
    qrels = {query: collection.qrels[query] for query in judged}
    found = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
    return {
        "model": source,
        "queries": len(judged),
        "passages": len(collection.corpus),
        "measures": {name: float(found[measure]) for name, measure in MEASURES.items()},
    }


def rank(
    queries: Sequence[str], asked: torch.Tensor, passages: Sequence[str], vectors: torch.Tensor
) -> dict[str, dict[str, float]]:
    """The best `DEPTH` passages of each query with their scores: exact search, by dot product."""
    depth, run = min(DEPTH, len(passages)), {}
    for start in range(0, len(queries), 256):
        scores, places = (asked[start : start + 256] @ vectors.T).topk(depth, dim=1)
        for query, row, best in zip(queries[start : start + 256], scores.tolist(), places.tolist(), strict=True):
            run[query] = {passages[place]: score for place, score in zip(best, row, strict=True)}
    return run


def read_collection(corpus: str, queries: str, qrels: str) -> Collection:
    """A collection from its three files.

    Raises:
        UsageError: a file is missing or malformed, naming file, line and field.
    """
    collection = Collection(_texts("corpus", corpus), _texts("queries", queries), _grades(qrels))
    if not any(query in collection.qrels for query in collection.queries):
        raise UsageError(f"--qrels {qrels}: judges none of the queries in {queries}")
    return collection


def _texts(option: str, given: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, row in read_values(option, given):
        name = row.get("_id", row.get("id")) if isinstance(row, dict) else None
        if name is None:
            raise UsageError(f"{where}: _id: expected an id, found none")
        if not isinstance(row.get("text"), str):
            raise UsageError(f"{where}: text: expected a text, found none")
        if str(name) in texts:
            raise UsageError(f"{where}: _id: {name} is there twice")
        texts[str(name)] = f"{row.get('title') or ''} {row['text']}".strip()
    return texts


def _grades(given: str) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for number, row in enumerate(csv.reader(read_lines("qrels", given), delimiter="\t", quoting=csv.QUOTE_NONE), 1):
        if number == 1 or not row:
            continue
        try:
            query, passage, grade = row
            grades.setdefault(query, {})[passage] = int(grade)
        except ValueError as error:
            raise UsageError(f"--qrels {given}:{number}: expected query id, passage id and a whole number") from error
    return grades


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value", title=f"{figures['queries']} queries over {figures['passages']} passages")
    for name, value in figures["measures"].items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
