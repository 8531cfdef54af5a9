"""The order of the samples: a pure function of (seed, epoch).

A sample id is the pair (epoch, row), so the data set needs no `set_epoch`, which frameworks forward to some samplers
and not to others, and reset when they skip batches: see https://github.com/huggingface/transformers/pull/40691.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch.utils.data import Sampler

from resumecheck.embedding import draws


class SampleId(NamedTuple):
    """Names one sample of the whole run."""

    epoch: int
    row: int


def batches_of_epoch(rows: int, batch_size: int, *, seed: int, epoch: int, drop_last: bool) -> Iterator[list[SampleId]]:
    """The batches of one epoch, over all processes; a launcher deals them out in turn."""
    order = draws.permutation(rows, seed=seed, purpose=draws.ORDER, epoch=epoch)
    for start in range(0, rows, batch_size):
        batch = order[start : start + batch_size]
        if len(batch) == batch_size or not drop_last:
            yield [SampleId(epoch, int(row)) for row in batch]


class EpochBatchSampler(Sampler[list[SampleId]]):
    """`batches_of_epoch` for the epoch that the run is in; it holds no state, so a resume has nothing to restore.

    Args:
        rows: rows of the data set.
        batch_size: rows to a batch of one process.
        seed: of the order.
        drop_last: leave out a last batch that is not full.
        epoch: the number of finished epochs, asked for when an epoch starts.
    """

    def __init__(self, rows: int, batch_size: int, *, seed: int, drop_last: bool, epoch: Callable[[], int]) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[SampleId]]:
        return batches_of_epoch(
            self.rows, self.batch_size, seed=self.seed, epoch=self.epoch(), drop_last=self.drop_last
        )

    def __len__(self) -> int:
        return self.rows // self.batch_size if self.drop_last else -(-self.rows // self.batch_size)
