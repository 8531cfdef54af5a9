"""From JSONL rows to samples.

`read_rows` validates the files and keeps them in Arrow form (memory-mapped, so they may be larger than memory).
`TrainDataset` turns a `SampleId` into a `Sample`, a pure function of (seed, epoch, row): whichever process, worker or
resumed run asks for it, in whatever order, gets the same texts.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import datasets
import xxhash
from datasets.exceptions import DatasetGenerationError
from torch.utils.data import Dataset

from resumecheck.embedding import draws
from resumecheck.embedding.sampler import SampleId
from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.errors import UsageError

#: Part of the key of the Arrow cache: raise it when `_checked` changes what it returns.
_FORMAT = 1

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
    }
)


#: FlagEmbedding's mark on a file or directory whose rows must not be negatives for each other.
_SUFFIX = "no_in_batch_neg"
_LOG = logging.getLogger(__name__)


class Sample(NamedTuple):
    """The texts of one training example; the first passage is the positive."""

    query: str
    passages: list[str]


@dataclasses.dataclass(frozen=True)
class DataFile:
    """A file of training data and the digest (xxh3-128) of its content."""

    path: Path
    digest: str


class TrainDataset(Dataset[Sample]):
    """Samples by `SampleId`.

    Args:
        rows: as `read_rows` returns them.
        files: what the rows were read from.
        settings: the instructions.
        group_size: passages to a query, the positive included.
        seed: of the choice of positives and negatives.
    """

    def __init__(
        self, rows: Any, files: Sequence[DataFile], settings: EmbeddingSettings, *, group_size: int, seed: int
    ) -> None:
        self.rows = rows
        self.files = tuple(files)
        self.settings = settings
        self.group_size = group_size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SampleId) -> Sample:
        epoch, number = index
        row = self.rows[number]
        key = {"seed": self.seed, "epoch": epoch, "row": number}
        positive = int(draws.words(1, purpose=draws.POSITIVE, **key)[0]) % len(row["pos"])
        wanted = self.group_size - 1
        order = draws.permutation(len(row["neg"]), purpose=draws.NEGATIVES, **key) if wanted else ()
        # A row with too few negatives gives each of them several times.
        negatives = [row["neg"][order[place % len(order)]] for place in range(wanted)]
        passages = [row["pos"][positive], *negatives]
        return Sample(
            query=self.settings.query_text(row["query"], row["prompt"]),
            passages=[self.settings.passage_text(passage) for passage in passages],
        )

    @property
    def fingerprint(self) -> list[dict[str, str]]:
        """What the data is, for a checkpoint: name and digest of each file, in reading order."""
        return [{"name": file.path.name, "xxh3_128": file.digest} for file in self.files]


def load_train_dataset(
    paths: Sequence[str], settings: EmbeddingSettings, *, group_size: int, seed: int, cache_path: str | None = None
) -> TrainDataset:
    """The data set over all files in `paths`.

    Raises:
        UsageError: a path or a row cannot be used.
    """
    files = find_files(paths)
    marked = [str(file.path) for file in files if _wants_no_in_batch_negatives(file.path)]
    if marked:
        _LOG.warning("%s: named `%s`, yet batches are mixed and other rows' passages are negatives", marked[0], _SUFFIX)
    rows = read_rows(files, needs_negatives=group_size > 1, cache_path=cache_path)
    return TrainDataset(rows, files, settings, group_size=group_size, seed=seed)


def find_files(paths: Sequence[str]) -> list[DataFile]:
    """The files named by `paths`; those of a directory (at any depth) sorted, since its own order differs by machine.

    Raises:
        UsageError: a path does not exist, holds no data or is given twice.
    """
    found: list[Path] = []
    for given in map(Path, paths):
        if given.is_dir():
            inside = [path for path in given.rglob("*") if path.suffix in (".jsonl", ".json") and path.is_file()]
            if not inside:
                raise UsageError(f"--train_data {given}: the directory holds no .jsonl or .json file")
            found += sorted(inside, key=lambda path: path.relative_to(given).parts)
        elif given.is_file():
            found.append(given)
        else:
            raise UsageError(f"--train_data {given}: no such file or directory")
    resolved = [path.resolve() for path in found]
    for path in resolved:
        if resolved.count(path) > 1:
            raise UsageError(f"--train_data: {path} is given more than once; its rows would count twice")
    return [DataFile(path, _digest(path)) for path in found]


def _wants_no_in_batch_negatives(path: Path) -> bool:
    return path.stem.endswith(_SUFFIX) or path.parent.name.endswith(_SUFFIX)


def read_rows(files: Sequence[DataFile], *, needs_negatives: bool, cache_path: str | None = None) -> datasets.Dataset:
    """The rows of the files in Arrow form, with the columns of `_FEATURES`.

    Raises:
        UsageError: a row is malformed; the message names file, line and field.
    """
    key = {
        "paths": tuple(str(file.path.resolve()) for file in files),
        "digests": tuple(file.digest for file in files),
        "needs_negatives": needs_negatives,
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
    paths: tuple[str, ...], digests: tuple[str, ...], needs_negatives: bool, row_format: int
) -> Iterator[dict[str, Any]]:
    del digests, row_format  # they are there for the key of the cache
    empty = True
    for path in paths:
        with Path(path).open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    empty = False
                    yield _checked(line, f"{path}:{number}", needs_negatives)
    if empty:
        raise UsageError(f"--train_data: no rows in {', '.join(paths)}")


def _checked(line: bytes, where: str, needs_negatives: bool) -> dict[str, Any]:
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
    if not checked["pos"]:
        raise UsageError(f"{where}: pos: expected at least one text, found none")
    if needs_negatives and not checked["neg"]:
        raise UsageError(
            f"{where}: neg: expected at least one text, found none\n"
            "Add negatives, or train with in-batch negatives alone: --train_group_size 1"
        )
    if b"\\u" in line:
        for field in ("query", "pos", "neg", "prompt", "type"):
            if not _encodable(checked[field]):
                raise UsageError(f"{where}: {field}: half of a surrogate pair (\\ud800 to \\udfff) is no character")
    return checked


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
