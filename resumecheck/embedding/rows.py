"""Files of training data, and their rows: each row is checked, and kept in Arrow form.

Arrow files are memory-mapped, so the data may be larger than memory.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import datasets
import xxhash
from datasets.exceptions import DatasetGenerationError

from resumecheck.errors import UsageError

#: Part of the key of the Arrow cache: raise it when `_checked` changes what it returns.
_FORMAT = 3

_TEXTS, _NUMBERS = [datasets.Value("string")], [datasets.Value("float64")]
_FEATURES = datasets.Features(
    {
        "query": datasets.Value("string"),
        "pos": _TEXTS,
        "neg": _TEXTS,
        "pos_scores": _NUMBERS,
        "neg_scores": _NUMBERS,
        "prompt": datasets.Value("string"),
        "type": datasets.Value("string"),
        "category": datasets.Value("string"),
        "batch_size": datasets.Value("int64"),
        "train_group_size": datasets.Value("int64"),
        "file": datasets.Value("int32"),  # its place among the files
    }
)

#: FlagEmbedding's mark on a file or directory whose rows must not be negatives for each other.
SUFFIX = "no_in_batch_neg"

#: The type of rows whose positives are texts of the same `category`.
CLUSTERING = "symmetric_clustering"


@dataclasses.dataclass(frozen=True)
class DataFile:
    """A file of training data, the digest (xxh3-128) of its content and the path by which it was given."""

    path: Path
    digest: str
    given: Path

    @functools.cached_property
    def own_group_only(self) -> bool:
        """Whether the name of the file, or of a directory that it was given in, has the mark `no_in_batch_neg`."""
        directories = [self.path.parent, *(above for above in self.path.parents if above.is_relative_to(self.given))]
        return any(name.endswith(SUFFIX) for name in (self.path.stem, *(above.name for above in directories)))


def find_files(paths: Sequence[str]) -> list[DataFile]:
    """The files named by `paths`; those of a directory (at any depth) sorted, since its own order differs by machine.

    Raises:
        UsageError: a path does not exist, holds no data or is given twice.
    """
    found: list[tuple[Path, Path]] = []
    for given in map(Path, paths):
        if given.is_dir():
            inside = [path for path in given.rglob("*") if path.suffix in (".jsonl", ".json") and path.is_file()]
            if not inside:
                raise UsageError(f"--train_data {given}: the directory holds no .jsonl or .json file")
            found += [(path, given) for path in sorted(inside, key=lambda path: path.relative_to(given).parts)]
        elif given.is_file():
            found.append((given, given))
        else:
            raise UsageError(f"--train_data {given}: no such file or directory")
    resolved = [path.resolve() for path, _ in found]
    for path in resolved:
        if resolved.count(path) > 1:
            raise UsageError(f"--train_data: {path} is given more than once; its rows would count twice")
    return [DataFile(path, _digest(path), given) for path, given in found]


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_rows(
    files: Sequence[DataFile],
    *,
    needs_negatives: bool,
    needs_scores: bool = False,
    needs_categories: bool = False,
    cache_path: str | None = None,
) -> datasets.Dataset:
    """The rows of the files in Arrow form, with the columns of `_FEATURES`.

    Raises:
        UsageError: a row is malformed; the message names file, line and field.
    """
    key = {
        "paths": tuple(str(file.path.resolve()) for file in files),
        "digests": tuple(file.digest for file in files),
        "needs_negatives": needs_negatives,
        "needs_scores": needs_scores,
        "needs_categories": needs_categories,
        "row_format": _FORMAT,
    }
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        rows: Any = datasets.Dataset.from_generator(
            _checked_rows, features=_FEATURES, gen_kwargs=key, cache_dir=cast("str", cache_path)
        )
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, UsageError):
            raise error.__cause__ from None
        raise
    finally:
        if shown:
            datasets.enable_progress_bars()
    return rows


def _checked_rows(
    paths: tuple[str, ...],
    digests: tuple[str, ...],
    needs_negatives: bool,
    needs_scores: bool,
    needs_categories: bool,
    row_format: int,
) -> Iterator[dict[str, Any]]:
    del digests, row_format  # they are there for the key of the cache
    empty = True
    for file, path in enumerate(paths):
        for _, row in checked_lines(
            Path(path), needs_negatives=needs_negatives, needs_scores=needs_scores, needs_categories=needs_categories
        ):
            empty = False
            yield {"file": file, **row}
    if empty:
        raise UsageError(f"--train_data: no rows in {', '.join(paths)}")


def checked_lines(
    path: Path, *, needs_negatives: bool = False, needs_scores: bool = False, needs_categories: bool = False
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line of a file that is not empty, with the fields of its row.

    Raises:
        UsageError: a row is malformed; the message names file, line and field.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield line, _checked(line, f"{path}:{number}", needs_negatives, needs_scores, needs_categories)


def _checked(
    line: bytes, where: str, needs_negatives: bool, needs_scores: bool, needs_categories: bool
) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 ({error})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise UsageError(f"{where}: expected an object with `query`, `pos` and `neg`, found {_kind(row)}")
    if not isinstance(row.get("query"), str):
        raise UsageError(f"{where}: query: expected a text, found {_kind(row.get('query'))}")
    checked: dict[str, Any] = {"query": row["query"]}
    for field in ("pos", "neg"):
        checked[field] = _list_of(row, field, str, "texts", where)
        checked[f"{field}_scores"] = _list_of(row, f"{field}_scores", (int, float), "numbers", where)
        scores, texts = checked[f"{field}_scores"], checked[field]
        if scores and len(scores) != len(texts):
            raise UsageError(f"{where}: {field}_scores: {len(scores)} scores for {len(texts)} texts in {field}")
    for field in ("prompt", "type"):
        checked[field] = row.get(field)
        if checked[field] is not None and not isinstance(checked[field], str):
            raise UsageError(f"{where}: {field}: expected a text, found {_kind(checked[field])}")
    for field in ("batch_size", "train_group_size"):
        checked[field] = row.get(field)
        if checked[field] is not None and not _is_size(checked[field]):
            raise UsageError(f"{where}: {field}: expected a whole number above 0, found {str(checked[field])[:12]}")
    if not checked["pos"]:
        raise UsageError(f"{where}: pos: expected at least one text, found none")
    if group_of(checked, 2 if needs_negatives else 1) > 1 and not checked["neg"]:
        raise UsageError(
            f"{where}: neg: expected at least one text, found none\n"
            "Add negatives, or train with in-batch negatives alone: --train_group_size 1"
        )
    if needs_scores and not has_scores(checked):
        raise UsageError(
            f"{where}: pos_scores, neg_scores: expected a score for each text of pos and neg (--knowledge_distillation)"
        )
    # Only where it is the answer of an example: others may use the name for something else.
    checked["category"] = row.get("category") if needs_categories and checked["type"] == CLUSTERING else None
    if needs_categories and checked["type"] == CLUSTERING and not isinstance(checked["category"], str):
        raise UsageError(
            f"{where}: category: expected a text, found {_kind(checked['category'])}; it is the answer when a row of "
            f"type {CLUSTERING} is an example"
        )
    if b"\\u" in line:
        for field in ("query", "pos", "neg", "prompt", "type", "category"):
            if not _encodable(checked[field]):
                raise UsageError(f"{where}: {field}: half of a surrogate pair (\\ud800 to \\udfff) is no character")
    return checked


def group_of(row: Mapping[str, Any], group_size: int) -> int:
    """Passages to the query of a row; as in FlagEmbedding, a row's own size counts where it has no type."""
    if row["type"] == "only_1neg":
        return 2
    if row["type"] == "symmetric_class":
        return min(len(row["neg"]) + 1, group_size)
    if row["type"] is None and row["train_group_size"] is not None:
        return row["train_group_size"]
    return group_size


def has_scores(row: Mapping[str, Any]) -> bool:
    """Whether each of its texts has the score of a teacher."""
    return all(len(row[f"{field}_scores"]) == len(row[field]) for field in ("pos", "neg"))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _encodable(value: Any) -> bool:
    try:
        return bool(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False


def _list_of(row: dict[str, Any], field: str, types: Any, name: str, where: str) -> list[Any]:
    value = row.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UsageError(f"{where}: {field}: expected a list of {name}, found {_kind(value)}")
    for place, item in enumerate(value):
        if not isinstance(item, types) or isinstance(item, bool):
            raise UsageError(f"{where}: {field}[{place}]: expected a list of {name}, found {_kind(item)}")
        if not isinstance(item, str) and not abs(item) <= sys.float_info.max:
            raise UsageError(f"{where}: {field}[{place}]: expected a finite number, found {str(item)[:12]}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
