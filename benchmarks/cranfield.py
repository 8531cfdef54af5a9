"""Retrieval quality on the Cranfield collection: this trainer and sentence-transformers side by side on the same data.

all-MiniLM-L6-v2 is trained on the odd queries and tested on the even ones (nDCG@10). Both trainers get the same rows,
batch size, learning rate, schedule, number of steps and temperature, in processes of their own that run in turn, for
each seed; sentence-transformers with `MultipleNegativesRankingLoss`. Then this trainer once more with settings of its
own, which `--choose` finds on the training queries alone: a fifth of them is held out.

    python -m benchmarks.cranfield DATA [--seeds 0 1 2] [--choose]

DATA holds corpus.jsonl, queries.jsonl, qrels-test.tsv and train.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resumecheck.embedding.demo import encoder_directory

EPOCHS, BATCH, RATE, TEMPERATURE = 2, 32, 2e-5, 0.05
#: Longest passage in tokens, where it is trained on and where it is ranked.
TRAINED_LENGTH, LENGTH = 128, 256

#: Settings of this trainer that are tried with `--choose`; with `by_query` all rows of a query are one row with several
#: positives.
CANDIDATES: dict[str, dict[str, Any]] = {
    "as above": {},
    "rows by query": {"by_query": True, "num_train_epochs": 12},
    "rows by query, 5e-5": {"by_query": True, "num_train_epochs": 12, "learning_rate": 5e-5},
    "5e-5": {"learning_rate": 5e-5},
    "5e-5, a hard negative": {"learning_rate": 5e-5, "train_group_size": 2},
    "1e-4": {"learning_rate": 1e-4},
    "a hard negative": {"train_group_size": 2},
    "5e-5, two hard negatives": {"learning_rate": 5e-5, "train_group_size": 3},
}
#: What `--choose` chose.
CHOSEN = "5e-5, a hard negative"

#: One row of a query in this many is held out by `--choose`.
HELD_OUT = 5


def main() -> int:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the collection")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument(
        "--choose", nargs="*", choices=list(CANDIDATES), help="try these settings on a part of the training queries"
    )
    parser.add_argument("--sentence_transformers", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sentence_transformers:
        train_sentence_transformers(options.data, *options.sentence_transformers)
        return 0
    if not (options.data / "train.jsonl").exists():
        parser.error(f"{options.data}: no train.jsonl is there")
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(options.data, Path(directory))
        compare(bench, options.seeds) if options.choose is None else choose(bench, options.choose)
    return 0


class Bench:
    """The collection, and a directory to train in."""

    def __init__(self, data: Path, directory: Path) -> None:
        self.data = data
        self.directory = directory
        self.encoder = encoder_directory()
        self.rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
        self.test = data / "queries.jsonl", data / "qrels-test.tsv"

    def train(self, rows: Sequence[dict[str, Any]], seed: int, **changes: Any) -> Path:
        """The directory of a model that this trainer has trained."""
        by_query = changes.pop("by_query", False)
        rows = merged(rows) if by_query else rows
        options = {
            "model_name_or_path": self.encoder,
            "train_data": written(self.directory / "train.jsonl", rows),
            "output_dir": self.directory / "ours",
            "sentence_pooling_method": "mean",
            "train_group_size": 1,
            "query_max_len": 64,
            "passage_max_len": TRAINED_LENGTH,
            "temperature": TEMPERATURE,
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": BATCH,
            "learning_rate": RATE,
            "warmup_steps": 4,
            "seed": seed,
            "cache_path": self.directory / "cache",
        } | changes
        command = [sys.executable, "-m", "resumecheck", "train", "--overwrite_output_dir", "--use_cpu"]
        command += ["--save_strategy", "no", "--report_to", "none", "--disable_tqdm", "True"]
        _run(command + [text for name, value in options.items() for text in (f"--{name}", str(value))])
        return self.directory / "ours"

    def train_other(self, rows: Sequence[dict[str, Any]], seed: int) -> Path:
        """The directory of a model that sentence-transformers has trained."""
        out = self.directory / "theirs"
        file = written(self.directory / "theirs.jsonl", rows)
        own = [sys.executable, "-m", "benchmarks.cranfield", str(self.data)]
        _run([*own, "--sentence_transformers", str(file), str(out), str(seed)])
        return out

    def measure(self, model: Path, queries: Path, qrels: Path) -> float:
        """nDCG@10."""
        from resumecheck.embedding.evaluate import main as evaluate

        figures = self.directory / "figures.json"
        command = ["--model_name_or_path", str(model), "--corpus", str(self.data / "corpus.jsonl")]
        command += ["--queries", str(queries), "--qrels", str(qrels), "--json", str(figures)]
        command += ["--query_max_len", "64", "--passage_max_len", str(LENGTH), "--sentence_pooling_method", "mean"]
        with contextlib.redirect_stdout(io.StringIO()):
            status = evaluate([*command, "--normalize_embeddings", "True"])
        if status:
            raise SystemExit(status)
        return json.loads(figures.read_text())["measures"]["nDCG@10"]


def compare(bench: Bench, seeds: Sequence[int]) -> None:
    """Both trainers with the same settings, and this one with the chosen ones, on the test queries."""
    print(f"untrained: {bench.measure(bench.encoder, *bench.test):.4f}", flush=True)
    trainers: dict[str, Callable[[int], Path]] = {
        "resumecheck": lambda seed: bench.train(bench.rows, seed),
        "sentence-transformers": lambda seed: bench.train_other(bench.rows, seed),
        f"resumecheck, {CHOSEN}": lambda seed: bench.train(bench.rows, seed, **CANDIDATES[CHOSEN]),
    }
    found: dict[str, list[float]] = {name: [] for name in trainers}
    for seed in seeds:
        for name, train in trainers.items():
            started = time.perf_counter()
            found[name].append(bench.measure(train(seed), *bench.test))
            print(f"seed {seed}: {name}: {found[name][-1]:.4f} ({time.perf_counter() - started:.0f} s)", flush=True)
    for name, figures in found.items():
        print(f"{name}: mean {statistics.mean(figures):.4f}, from {min(figures):.4f} to {max(figures):.4f}")


def choose(bench: Bench, wanted: Sequence[str]) -> None:
    """Each candidate that is wanted, or all, on the training queries that are held out."""
    queries = list(dict.fromkeys(row["query"] for row in bench.rows))
    held = set(queries[::HELD_OUT])
    rows = [row for row in bench.rows if row["query"] not in held]
    names = {json.loads(line)["text"]: json.loads(line)["_id"] for line in _lines(bench.data / "corpus.jsonl")}
    asked = [{"_id": str(place), "text": text} for place, text in enumerate(queries) if text in held]
    grades = ["query-id\tcorpus-id\tscore"]
    for row in bench.rows:
        if row["query"] in held:
            grades += [f"{queries.index(row['query'])}\t{names[text]}\t1" for text in row["pos"]]
    qrels = bench.directory / "held-out.tsv"
    qrels.write_text("\n".join(grades) + "\n")
    test = written(bench.directory / "held-out.jsonl", asked), qrels
    print(f"{len(held)} of {len(queries)} queries held out; untrained: {bench.measure(bench.encoder, *test):.4f}")
    for name, changes in CANDIDATES.items():
        if wanted and name not in wanted:
            continue
        started = time.perf_counter()
        figure = bench.measure(bench.train(rows, 0, **changes), *test)
        print(f"{name}: {figure:.4f} ({time.perf_counter() - started:.0f} s)", flush=True)


def merged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each query, with the positives and negatives of all of its rows."""
    by_query: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = by_query.setdefault(row["query"], {"query": row["query"], "pos": [], "neg": []})
        for field in ("pos", "neg"):
            one[field] = list(dict.fromkeys([*one[field], *row[field]]))
    for one in by_query.values():
        one["neg"] = [text for text in one["neg"] if text not in one["pos"]]
    return list(by_query.values())


def train_sentence_transformers(data: Path, rows: str, out: str, seed: str) -> None:
    """Train with sentence-transformers, in this process."""
    import datasets
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(encoder_directory()), device="cpu")
    model.max_seq_length = TRAINED_LENGTH
    pairs = [json.loads(line) for line in _lines(Path(rows))]
    args = SentenceTransformerTrainingArguments(
        output_dir=out,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        warmup_steps=4,
        seed=int(seed),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=datasets.Dataset.from_dict(
            {"anchor": [row["query"] for row in pairs], "positive": [row["pos"][0] for row in pairs]}
        ),
        loss=MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
    )
    trainer.train()
    model.save(out)


def written(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The file, with these rows."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def _run(command: Sequence[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
