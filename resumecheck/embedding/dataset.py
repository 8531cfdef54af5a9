"""From rows (`rows.py`) to samples.

`TrainDataset` turns a `SampleId` into a `Sample`, a pure function of (seed, epoch, row): whichever process, worker or
resumed run asks for it, in whatever order, gets the same texts.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from resumecheck.embedding import draws
from resumecheck.embedding.in_context import MOST_EXAMPLES, Example
from resumecheck.embedding.rows import CLUSTERING, SUFFIX, DataFile, find_files, group_of, has_scores, read_rows
from resumecheck.embedding.sampler import Pool, SampleId
from resumecheck.embedding.settings import EmbeddingSettings

#: Row types whose passages are queries in their own right, so they get the instruction of queries.
_PASSAGES_AS_QUERIES = ("symmetric_sts", CLUSTERING)

#: Only longer texts are shuffled, in this many pieces.
_SHUFFLED_FROM, _PIECES = 100, 3

_LOG = logging.getLogger(__name__)


class Sample(NamedTuple):
    """The texts of one training example; the first passage is the positive.

    With `own_group_only`, passages of other rows are no negatives for it. `teacher` has a score for each passage, None
    where the row has no scores or none are asked for. `examples` are queries of other rows with their answers, and
    `passages_as_queries` says that the passages are queries too.
    """

    query: str
    passages: list[str]
    own_group_only: bool = False
    teacher: list[float] | None = None
    examples: Sequence[Example] = ()
    passages_as_queries: bool = False


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
        sizes: how many of the rows each file has.
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
        sizes: Sequence[int],
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
        self.starts = np.cumsum([0, *sizes])
        self.pools = pools
        self.chosen = dict(chosen or {})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SampleId) -> Sample:
        epoch, number = index
        row = self.rows[number]
        key = {"seed": self.seed, "epoch": epoch, "row": number}
        positive = self._positive(row, key)
        wanted = group_of(row, self.group_size) - 1
        order = draws.permutation(len(row["neg"]), purpose=draws.NEGATIVES, **key) if wanted else ()
        # A row with too few negatives gives each of them several times.
        negatives = [int(order[place % len(order)]) for place in range(wanted)]
        passages = [self._shuffled(row["pos"][positive], key), *(row["neg"][place] for place in negatives)]
        teacher = None
        if self.distillation and has_scores(row):
            teacher = [row["pos_scores"][positive], *(row["neg_scores"][place] for place in negatives)]
        as_queries = row["type"] in _PASSAGES_AS_QUERIES
        if as_queries:
            passages = [self.settings.query_text(passage, row["prompt"]) for passage in passages]
        else:
            passages = [self.settings.passage_text(passage) for passage in passages]
        return Sample(
            query=self.settings.query_text(row["query"], row["prompt"]),
            passages=passages,
            own_group_only=self.files[row["file"]].own_group_only or (row["type"] or "").endswith(SUFFIX),
            teacher=teacher,
            examples=self._examples(row, key) if self.settings.has_examples(row["type"]) else (),
            passages_as_queries=as_queries,
        )

    def _positive(self, row: Mapping[str, Any], key: dict[str, int]) -> int:
        return int(draws.words(1, purpose=draws.POSITIVE, **key)[0]) % len(row["pos"])

    def _examples(self, row: Mapping[str, Any], key: dict[str, int]) -> list[Example]:
        """None to five other rows of the same file, each number as likely, or as many as there are."""
        start, end = self.starts[row["file"] : row["file"] + 2].tolist()
        drawn = draws.words(1 + MOST_EXAMPLES, purpose=draws.EXAMPLES, **key)
        count = min(int(drawn[0]) % (MOST_EXAMPLES + 1), end - start - 1)
        places = draws.distinct(drawn[1 : 1 + count], end - start - 1)
        numbers = [start + place + (start + place >= key["row"]) for place in places]  # all but the row itself
        return [self._example(number, {**key, "row": number}) for number in numbers]

    def _example(self, number: int, key: dict[str, int]) -> Example:
        """A row with the positive that it has in this epoch."""
        row = self.rows[number]
        query = self.settings.query_text(row["query"], row["prompt"])
        if row["type"] == CLUSTERING:
            return Example(query, row["category"])
        return Example(query, self._shuffled(row["pos"][self._positive(row, key)], key))

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
        files,
        needs_negatives=group_size > 1,
        needs_scores=distillation and same_dataset is None,
        needs_categories=settings.has_examples(CLUSTERING),
        cache_path=cache_path,
    )
    if same_dataset is None and rows.data.column("batch_size").null_count < len(rows):
        _LOG.warning("batch_size in the data has no effect: batches are mixed; give --same_dataset_within_batch True")
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
        sizes=sizes.tolist(),
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
