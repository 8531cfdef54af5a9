"""Retrieval data from the documentation that ships with Python itself: no download, real text, on every machine.

A pair is a definition of the standard library (its dotted name and signature in words) and the first paragraph of its
documentation. Sources are read with `ast`, nothing is imported. Whole modules are either for training or for the test,
so the test asks about modules that training has never seen.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

#: Parts of the standard library that are no documentation for users.
_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "__pycache__",
    "turtledemo",
    "ensurepip",
    "pydoc_data",
}

#: One module in this many is for the test.
_TEST_SHARE = 5


@dataclasses.dataclass(frozen=True)
class Pair:
    """A definition and the first paragraph of its documentation."""

    module: str
    name: str
    query: str
    passage: str


@dataclasses.dataclass(frozen=True)
class Files:
    """Where the data was written."""

    train: Path
    corpus: Path
    queries: Path
    qrels: Path
    train_pairs: int
    test_queries: int
    passages: int


def write_data(directory: Path, *, library: Path | None = None) -> Files:
    """Write train.jsonl, and corpus.jsonl, queries.jsonl and qrels.tsv of the held-out modules.

    Args:
        directory: where the files go; it is made.
        library: the sources to read, by default the standard library of this Python.
    """
    pairs = list(read_pairs(library or Path(sysconfig.get_paths()["stdlib"])))
    train = [pair for pair in pairs if not is_held_out(pair.module)]
    test = [pair for pair in pairs if is_held_out(pair.module)]
    directory.mkdir(parents=True, exist_ok=True)
    files = Files(
        *(directory / name for name in ("train.jsonl", "corpus.jsonl", "queries.jsonl", "qrels.tsv")),
        train_pairs=len(train),
        test_queries=len(test),
        passages=len(pairs),
    )
    _write_lines(
        files.train, ({"query": p.query, "pos": [p.passage], "neg": _negatives(train, i)} for i, p in enumerate(train))
    )
    # The test searches the documentation of all modules: more to confuse than the held-out ones alone.
    _write_lines(files.corpus, ({"_id": f"{p.module}.{p.name}", "title": "", "text": p.passage} for p in pairs))
    _write_lines(files.queries, ({"_id": f"{p.module}.{p.name}", "text": p.query} for p in test))
    rows = ["query-id\tcorpus-id\tscore", *(f"{p.module}.{p.name}\t{p.module}.{p.name}\t1" for p in test)]
    files.qrels.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return files


def _negatives(pairs: list[Pair], index: int, count: int = 4) -> list[str]:
    """The passages that follow in the file order: mostly of the same module, so they are hard to tell apart."""
    following = (pairs[(index + step) % len(pairs)] for step in range(1, count + 1))
    return [pair.passage for pair in following]


def is_held_out(module: str) -> bool:
    """Whether a top-level module is for the test: by its name alone, so the split is the same everywhere."""
    top = module.partition(".")[0]
    return hashlib.sha256(top.encode()).digest()[0] % _TEST_SHARE == 0


def read_pairs(library: Path) -> Iterator[Pair]:
    """Every public definition with documentation, in the order of file and line; a passage comes once."""
    seen: set[str] = set()
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if any(part in _LEFT_OUT or part.startswith("_") for part in parts if part != "__init__"):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        for pair in _pairs_of(tree, module, ""):
            # A name that is defined twice (a property and its setter) counts once, as does a text that stands twice.
            if seen.isdisjoint((pair.passage, f"{pair.module}.{pair.name}")):
                seen.update((pair.passage, f"{pair.module}.{pair.name}"))
                yield pair


def _pairs_of(node: ast.AST, module: str, prefix: str) -> Iterator[Pair]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        name = f"{prefix}{child.name}"
        passage = first_paragraph(ast.get_docstring(child) or "")
        if passage:
            yield Pair(module, name, _question(module, name, child), passage)
        if isinstance(child, ast.ClassDef):
            yield from _pairs_of(child, module, f"{name}.")


def first_paragraph(text: str) -> str:
    """The first paragraph on one line; nothing where it is too short to say anything, at most 60 words."""
    words = text.strip().partition("\n\n")[0].split()
    return " ".join(words[:60]) if len(words) >= 5 else ""


def _question(module: str, name: str, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """`http.client`, `putheader(header, values)` as `http client: put header (header, values)`."""
    arguments = ""
    if not isinstance(node, ast.ClassDef):
        names = [
            argument.arg for argument in (*node.args.args, *node.args.kwonlyargs) if argument.arg not in ("self", "cls")
        ]
        arguments = f" ({', '.join(names)})" if names else ""
    return f"{_in_words(module)}: {_in_words(name)}{arguments}"


def _in_words(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.sub(r"[._]+", " ", spaced).strip().lower()


def _write_lines(path: Path, rows: Iterator[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
