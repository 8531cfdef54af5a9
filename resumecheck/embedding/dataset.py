"""From JSONL rows to samples.

`read_rows` validates the files and keeps them in Arrow form (memory-mapped, so they may be larger than memory).
`TrainDataset` turns a `SampleId` into a `Sample`, a pure function of (seed, epoch, row): whichever process, worker or
resumed run asks for it, in whatever order, gets the same texts.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import datasets
import numpy as np
import xxhash
from datasets.exceptions import DatasetGenerationError
from torch.utils.data import Dataset

from resumecheck.embedding import draws
from resumecheck.embedding.sampler import Pool, SampleId
from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.errors import UsageError

#: Part of the key of the Arrow cache: raise it when `_checked` changes what it returns.
_FORMAT = 2

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
        "batch_size": datasets.Value("int64"),
        "train_group_size": datasets.Value("int64"),
        "file": datasets.Value("int32"),  # its place among the files
    }
)


#: FlagEmbedding's mark on a file or directory whose rows must not be negatives for each other.
_SUFFIX = "no_in_batch_neg"

#: Row types whose passages are queries in their own right, so they get the instruction of queries.
_PASSAGES_AS_QUERIES = ("symmetric_sts", "symmetric_clustering")

#: Only longer texts are shuffled, in this many pieces.
_SHUFFLED_FROM, _PIECES = 100, 3

_LOG = logging.getLogger(__name__)


class Sample(NamedTuple):
    """The texts of one training example; the first passage is the positive.

    With `own_group_only`, passages of other rows are no negatives for it. `teacher` has a score for each passage, None
    where the row has no scores or none are asked for.
    """

    query: str
    passages: list[str]
    own_group_only: bool = False
    teacher: list[float] | None = None


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
        return any(name.endswith(_SUFFIX) for name in (self.path.stem, *(above.name for above in directories)))


@dataclasses.dataclass(frozen=True)
class SameDataset:
    """How batches of one data set are made (`--same_dataset_within_batch`).

    A data set is a file, or the small files of a directory together.

    Attributes:
        batch_size: rows to a batch of one process, where the data set does not say otherwise.
        small_threshold: files with fewer rows are small.
        drop_threshold: small files of a directory that have fewer rows together are left out.
    """

    batch_size: int
    small_threshold: int = 0
    drop_threshold: int = 0


class TrainDataset(Dataset[Sample]):
    """Samples by `SampleId`.

    Args:
        rows: as `read_rows` returns them.
        files: what the rows were read from.
        settings: the instructions.
        group_size: passages to a query, the positive included, where the row does not say otherwise.
        seed: of the choice of positives and negatives.
        shuffle_ratio: the share of long positives whose pieces are put in another order.
        distillation: give the scores of a teacher along.
        pools: the rows that may share a batch; None where all may.
        chosen: the options by which rows and pools were chosen, for a checkpoint.
    """

    def __init__(
        self,
        rows: Any,
        files: Sequence[DataFile],
        settings: EmbeddingSettings,
        *,
        group_size: int,
        seed: int,
        shuffle_ratio: float = 0.0,
        distillation: bool = False,
        pools: Sequence[Pool] | None = None,
        chosen: Mapping[str, Any] | None = None,
    ) -> None:
        self.rows = rows
        self.files = tuple(files)
        self.settings = settings
        self.group_size = group_size
        self.seed = seed
        self.shuffle_ratio = shuffle_ratio
        self.distillation = distillation
        self.pools = pools
        self.chosen = dict(chosen or {})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SampleId) -> Sample:
        epoch, number = index
        row = self.rows[number]
        key = {"seed": self.seed, "epoch": epoch, "row": number}
        positive = int(draws.words(1, purpose=draws.POSITIVE, **key)[0]) % len(row["pos"])
        wanted = group_of(row, self.group_size) - 1
        order = draws.permutation(len(row["neg"]), purpose=draws.NEGATIVES, **key) if wanted else ()
        # A row with too few negatives gives each of them several times.
        negatives = [int(order[place % len(order)]) for place in range(wanted)]
        passages = [self._shuffled(row["pos"][positive], key), *(row["neg"][place] for place in negatives)]
        teacher = None
        if self.distillation and _has_scores(row):
            teacher = [row["pos_scores"][positive], *(row["neg_scores"][place] for place in negatives)]
        if row["type"] in _PASSAGES_AS_QUERIES:
            passages = [self.settings.query_text(passage, row["prompt"]) for passage in passages]
        else:
            passages = [self.settings.passage_text(passage) for passage in passages]
        return Sample(
            query=self.settings.query_text(row["query"], row["prompt"]),
            passages=passages,
            own_group_only=self.files[row["file"]].own_group_only or (row["type"] or "").endswith(_SUFFIX),
            teacher=teacher,
        )

    def _shuffled(self, text: str, key: dict[str, int]) -> str:
        """The text, or its thirds in another order, for a `shuffle_ratio` of the long texts."""
        if not self.shuffle_ratio or len(text) <= _SHUFFLED_FROM:
            return text
        choice, *order = draws.words(1 + _PIECES, purpose=draws.SHUFFLE, **key)
        if int(choice) >= self.shuffle_ratio * 2**64:
            return text
        length = len(text) // _PIECES + 1
        pieces = [text[start : start + length] for start in range(0, len(text), length)]
        return " ".join(pieces[place] for place in np.argsort(order, kind="stable"))

    @property
    def options(self) -> dict[str, Any]:
        """What is drawn from the data, for a checkpoint."""
        return {
            "train_group_size": self.group_size,
            "shuffle_ratio": self.shuffle_ratio,
            "knowledge_distillation": self.distillation,
            "same_dataset_within_batch": self.pools is not None,
            **self.chosen,
        }

    @property
    def fingerprint(self) -> list[dict[str, str]]:
        """What the data is, for a checkpoint: name and digest of each file, in reading order."""
        return [{"name": file.path.name, "xxh3_128": file.digest} for file in self.files]


def group_of(row: Mapping[str, Any], group_size: int) -> int:
    """Passages to the query of a row; as in FlagEmbedding, a row's own size counts where it has no type."""
    if row["type"] == "only_1neg":
        return 2
    if row["type"] == "symmetric_class":
        return min(len(row["neg"]) + 1, group_size)
    if row["type"] is None and row["train_group_size"] is not None:
        return row["train_group_size"]
    return group_size


def load_train_dataset(
    paths: Sequence[str],
    settings: EmbeddingSettings,
    *,
    group_size: int,
    seed: int,
    cache_path: str | None = None,
    max_examples: int | None = None,
    shuffle_ratio: float = 0.0,
    distillation: bool = False,
    same_dataset: SameDataset | None = None,
) -> TrainDataset:
    """The data set over all files in `paths`, with at most `max_examples` rows, drawn by `seed`, of each.

    With `same_dataset` batches are not mixed, and rows without a teacher's scores are trained without.

    Raises:
        UsageError: a path or a row cannot be used.
    """
    files = find_files(paths)
    rows: Any = read_rows(
        files, needs_negatives=group_size > 1, needs_scores=distillation and same_dataset is None, cache_path=cache_path
    )
    bounds = np.searchsorted(rows.data.column("file").to_numpy(), np.arange(len(files) + 1))
    sizes = np.diff(bounds)
    if max_examples is not None and sizes.max() > max_examples:
        kept = [
            start + _subset(size, max_examples, seed, file)
            for file, (start, size) in enumerate(zip(bounds, sizes, strict=False))
        ]
        rows = rows.select(np.concatenate(kept))
        sizes = np.minimum(sizes, max_examples)
    return TrainDataset(
        rows,
        files,
        settings,
        group_size=group_size,
        seed=seed,
        shuffle_ratio=shuffle_ratio,
        distillation=distillation,
        pools=None if same_dataset is None else _pools(rows, files, sizes.tolist(), same_dataset),
        chosen={
            "max_example_num_per_dataset": max_examples,
            "small_threshold": same_dataset.small_threshold if same_dataset else 0,
            "drop_threshold": same_dataset.drop_threshold if same_dataset else 0,
        },
    )


def _pools(rows: Any, files: Sequence[DataFile], sizes: Sequence[int], options: SameDataset) -> list[Pool]:
    """The data sets as FlagEmbedding cuts them; a file too small to count is named in a warning."""
    pools: list[Pool] = []
    small: dict[Path, list[Pool]] = {}
    start = 0
    for file, size in zip(files, sizes, strict=True):
        if size:
            pool = Pool(np.arange(start, start + size), _batch_size(rows[start], options.batch_size))
            if size >= options.small_threshold:
                pools.append(pool)
            elif file.given.is_dir():
                small.setdefault(file.given, []).append(pool)
            else:
                _LOG.warning("%s: left out, %d rows are fewer than --small_threshold", file.path, size)
        start += size
    for directory, parts in small.items():
        numbers = np.concatenate([part.rows for part in parts])
        if len(numbers) >= options.drop_threshold:
            pools.append(Pool(numbers, min(part.batch_size for part in parts)))
        else:
            _LOG.warning(
                "%s: its small files are left out, %d rows are fewer than --drop_threshold", directory, len(numbers)
            )
    return pools


def _batch_size(row: Mapping[str, Any], batch_size: int) -> int:
    """Rows to a batch, by the first row of a file; symmetric data has half as many."""
    if row["batch_size"] is not None:
        return row["batch_size"]
    return max(1, batch_size // 2) if "symmetric" in (row["type"] or "") else batch_size


def _subset(size: int, most: int, seed: int, file: int) -> np.ndarray:
    """The numbers of the rows of a file that are trained on, in order."""
    if size <= most:
        return np.arange(size)
    return np.sort(draws.permutation(size, seed=seed, purpose=draws.SUBSET, epoch=0, row=file)[:most])


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


def read_rows(
    files: Sequence[DataFile], *, needs_negatives: bool, needs_scores: bool = False, cache_path: str | None = None
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
    paths: tuple[str, ...], digests: tuple[str, ...], needs_negatives: bool, needs_scores: bool, row_format: int
) -> Iterator[dict[str, Any]]:
    del digests, row_format  # they are there for the key of the cache
    empty = True
    for file, path in enumerate(paths):
        with Path(path).open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    empty = False
                    yield {"file": file, **_checked(line, f"{path}:{number}", needs_negatives, needs_scores)}
    if empty:
        raise UsageError(f"--train_data: no rows in {', '.join(paths)}")


def _checked(line: bytes, where: str, needs_negatives: bool, needs_scores: bool) -> dict[str, Any]:
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
    if needs_scores and not _has_scores(checked):
        raise UsageError(
            f"{where}: pos_scores, neg_scores: expected a score for each text of pos and neg (--knowledge_distillation)"
        )
    if b"\\u" in line:
        for field in ("query", "pos", "neg", "prompt", "type"):
            if not _encodable(checked[field]):
                raise UsageError(f"{where}: {field}: half of a surrogate pair (\\ud800 to \\udfff) is no character")
    return checked


def _has_scores(row: Mapping[str, Any]) -> bool:
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


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
