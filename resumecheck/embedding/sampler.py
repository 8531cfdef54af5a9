"""The order of the samples: a pure function of (seed, epoch), with batches of one data set also of the world size.

A sample id is the pair (epoch, row), so the data set needs no `set_epoch`, which frameworks forward to some samplers
and not to others, and reset when they skip batches: see https://github.com/huggingface/transformers/pull/40691.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
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


class Pool(NamedTuple):
    """Rows that may share a batch: the numbers of the rows, and how many make a batch of one process."""

    rows: np.ndarray
    batch_size: int


def batches_of_pools(pools: Sequence[Pool], *, seed: int, epoch: int, world_size: int) -> Iterator[list[SampleId]]:
    """The batches of one epoch, each from one pool; every `world_size` in a row, dealt out in turn, are from the same.

    What is left of a pool when it does not fill a batch for each process is not used in this epoch.
    """
    orders = [
        pool.rows[draws.permutation(len(pool.rows), seed=seed, purpose=draws.ORDER_IN_POOL, epoch=epoch, row=number)]
        for number, pool in enumerate(pools)
    ]
    steps = [
        (number, start)
        for number, pool in enumerate(pools)
        for start in range(0, steps_of(pool, world_size) * pool.batch_size * world_size, pool.batch_size * world_size)
    ]
    for place in draws.permutation(len(steps), seed=seed, purpose=draws.ORDER_OF_BATCHES, epoch=epoch):
        number, first = steps[place]
        size = pools[number].batch_size
        for start in range(first, first + size * world_size, size):
            yield [SampleId(epoch, int(row)) for row in orders[number][start : start + size]]


def steps_of(pool: Pool, world_size: int) -> int:
    """How often in an epoch each process gets a full batch of the pool."""
    return len(pool.rows) // (pool.batch_size * world_size)


class PoolBatchSampler(Sampler[list[SampleId]]):
    """`batches_of_pools` for the epoch that the run is in.

    Args:
        pools: the rows by data set.
        seed: of the order.
        world_size: the number of processes that the batches are dealt out to.
        epoch: the number of finished epochs, asked for when an epoch starts.
    """

    batch_size: int | None = None  # it varies
    drop_last = True

    def __init__(self, pools: Sequence[Pool], *, seed: int, world_size: int, epoch: Callable[[], int]) -> None:
        self.pools = tuple(pools)
        self.seed = seed
        self.world_size = world_size
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[SampleId]]:
        return batches_of_pools(self.pools, seed=self.seed, epoch=self.epoch(), world_size=self.world_size)

    def __len__(self) -> int:
        return sum(steps_of(pool, self.world_size) for pool in self.pools) * self.world_size
