"""Batches of one data set: what is in them, and that they are a pure function of (seed, epoch, world size)."""

import logging

import numpy as np
import pytest
from torch.utils.data import DataLoader

from resumecheck.embedding.dataset import SameDataset, load_train_dataset
from resumecheck.embedding.sampler import Pool, PoolBatchSampler, batches_of_pools
from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.errors import UsageError
from tests.embedding import targets, tiny

POOLS = [Pool(np.arange(13), 4), Pool(np.arange(13, 23), 2), Pool(np.array([30, 40, 50]), 4)]


def order(epoch, *, seed=3, world_size=1, pools=POOLS):
    return list(batches_of_pools(pools, seed=seed, epoch=epoch, world_size=world_size))


def rows_of(batch):
    return {sample.row for sample in batch}


# --- the order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_batch_is_full_and_of_one_pool_in_every_process(world_size):
    batches = order(0, world_size=world_size)
    pools = [next(number for number, pool in enumerate(POOLS) if rows_of(batch) <= set(pool.rows)) for batch in batches]
    assert all(len(batch) == POOLS[pool].batch_size for batch, pool in zip(batches, pools, strict=True))
    assert pools[0::world_size] == pools[world_size - 1 :: world_size]
    assert {pool: pools.count(pool) for pool in set(pools)} == ({0: 3, 1: 5} if world_size == 1 else {0: 2, 1: 4})


def test_no_row_is_given_twice_in_an_epoch():
    rows = [sample.row for batch in order(0) for sample in batch]
    assert len(set(rows)) == len(rows) == 3 * 4 + 5 * 2


def test_the_order_is_a_function_of_seed_epoch_and_world_size_alone():
    np.random.seed(1)
    first = order(1)
    order(0), np.random.seed(2)
    assert order(1) == first
    others = [order(1, seed=4), order(2), order(1, world_size=2)]
    assert all(other != first for other in others)
    assert {sample.epoch for batch in first for sample in batch} == {1}


def test_batches_of_the_pools_are_mixed_and_rows_change_places():
    first, second = order(0), order(1)
    assert [min(rows_of(batch)) >= 13 for batch in first] != sorted(min(rows_of(batch)) >= 13 for batch in first)
    assert {frozenset(rows_of(batch)) for batch in first} != {frozenset(rows_of(batch)) for batch in second}


def test_the_pools_follow_one_another_in_another_way_in_each_epoch():
    assert len({tuple(min(rows_of(batch)) >= 13 for batch in order(epoch)) for epoch in range(5)}) > 2


def test_what_is_left_over_in_one_epoch_is_used_in_another():
    pools = [Pool(np.arange(7), 4)]
    assert set().union(*(rows_of(batch) for epoch in range(20) for batch in order(epoch, pools=pools))) == set(range(7))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_accelerate_deals_the_batches_out_whole(world_size):
    from accelerate.data_loader import BatchSamplerShard

    sampler = PoolBatchSampler(POOLS, seed=3, world_size=world_size, epoch=lambda: 1)
    shares = [BatchSamplerShard(sampler, world_size, rank, even_batches=False) for rank in range(world_size)]
    dealt = [list(share) for share in shares]
    assert (
        [len(share) for share in shares] == [len(share) for share in dealt] == [len(sampler) // world_size] * world_size
    )
    assert [batch for step in zip(*dealt, strict=True) for batch in step] == order(1, world_size=world_size)


# --- what a data set is ----------------------------------------------------------------------------------------------


def load(paths, tmp_path, *, batch_size=4, small=0, drop=0, **changes):
    return load_train_dataset(
        [str(path) for path in paths],
        EmbeddingSettings(),
        group_size=3,
        seed=3,
        cache_path=str(tmp_path / "cache"),
        same_dataset=SameDataset(batch_size, small, drop),
        **changes,
    )


@pytest.fixture
def files(tmp_path):
    """Files of 3, 9 and 4 rows in one directory and of 5 in another."""
    for name, count in (("one/a", 3), ("one/b", 9), ("one/c", 4), ("two/d", 5)):
        tiny.write_rows(tmp_path / f"{name}.jsonl", tiny.rows(count))
    return tmp_path


def cut(dataset):
    return [(pool.rows.tolist(), pool.batch_size) for pool in dataset.pools]


def test_each_file_is_a_data_set(files):
    assert cut(load([files / "one", files / "two" / "d.jsonl"], files)) == [
        ([0, 1, 2], 4),
        (list(range(3, 12)), 4),
        ([12, 13, 14, 15], 4),
        (list(range(16, 21)), 4),
    ]


def test_the_small_files_of_a_directory_are_one_data_set(files):
    assert cut(load([files / "one", files / "two"], files, small=5)) == [
        (list(range(3, 12)), 4),
        (list(range(16, 21)), 4),
        ([0, 1, 2, 12, 13, 14, 15], 4),
    ]


def test_small_files_that_are_few_rows_together_are_left_out_by_name(files, caplog):
    assert cut(load([files / "one"], files, small=5, drop=7))[1:] == [([0, 1, 2, 12, 13, 14, 15], 4)]
    assert not caplog.text
    assert cut(load([files / "one"], files, small=5, drop=8))[1:] == []
    assert f"{files / 'one'}: its small files are left out, 7 rows are fewer than --drop_threshold" in caplog.text


def test_a_small_file_given_by_itself_is_left_out_by_name(files, caplog):
    assert cut(load([files / "one" / "a.jsonl", files / "two"], files, small=5)) == [(list(range(3, 8)), 4)]
    assert "a.jsonl: left out, 3 rows are fewer than --small_threshold" in caplog.text


def test_the_first_row_of_a_file_says_its_batch_size(tmp_path):
    plain = tiny.rows(6)
    tiny.write_rows(tmp_path / "a.jsonl", [{**plain[0], "batch_size": 2}, *plain[1:]])
    tiny.write_rows(tmp_path / "b.jsonl", [{**row, "type": "symmetric_sts"} for row in plain])
    tiny.write_rows(tmp_path / "c.jsonl", [{**row, "type": "symmetric_class", "batch_size": 5} for row in plain])
    tiny.write_rows(tmp_path / "d.jsonl", plain)
    paths = [tmp_path / f"{name}.jsonl" for name in "abcd"]
    assert [size for _, size in cut(load(paths, tmp_path, batch_size=8))] == [2, 4, 5, 8]
    assert [size for _, size in cut(load(paths, tmp_path, batch_size=1))] == [2, 1, 5, 1]


def test_merged_small_files_have_the_smallest_batch_size_among_them(tmp_path):
    plain = tiny.rows(3)
    tiny.write_rows(tmp_path / "set" / "a.jsonl", [{**plain[0], "batch_size": 2}, *plain[1:]])
    tiny.write_rows(tmp_path / "set" / "b.jsonl", plain)
    assert cut(load([tmp_path / "set"], tmp_path, small=4)) == [(list(range(6)), 2)]


def test_the_most_rows_of_a_file_count_before_it_is_small(files):
    assert cut(load([files / "one"], files, small=4, max_examples=4)) == [
        ([3, 4, 5, 6], 4),
        ([7, 8, 9, 10], 4),
        ([0, 1, 2], 4),
    ]


def test_rows_without_scores_may_stand_beside_rows_with_scores(tmp_path):
    rows = tiny.rows(2, positives=1, negatives=2)
    tiny.write_rows(tmp_path / "a.jsonl", [{**row, "pos_scores": [1], "neg_scores": [2, 3]} for row in rows])
    tiny.write_rows(tmp_path / "b.jsonl", rows)
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    dataset = load(paths, tmp_path, distillation=True)
    assert [bool(dataset[(0, row)].teacher) for row in range(4)] == [True, True, False, False]
    with pytest.raises(UsageError, match=r"b.jsonl:1: pos_scores, neg_scores"):
        load_train_dataset(
            list(map(str, paths)),
            EmbeddingSettings(),
            group_size=3,
            seed=3,
            cache_path=str(tmp_path / "cache"),
            distillation=True,
        )


def test_a_checkpoint_says_how_rows_and_batches_were_chosen(files):
    assert load([files / "one"], files, small=5, drop=7, max_examples=4).options == {
        "train_group_size": 3,
        "shuffle_ratio": 0.0,
        "knowledge_distillation": False,
        "same_dataset_within_batch": True,
        "max_example_num_per_dataset": 4,
        "small_threshold": 5,
        "drop_threshold": 7,
    }


# --- in training -----------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(encoder, tmp_path):
    (tmp_path / "encoder").symlink_to(encoder)
    for number, count in enumerate((9, 11)):
        tiny.write_rows(tmp_path / "data" / f"{number}.jsonl", tiny.rows(count, seed=number))
    return tmp_path


def build(directory, **changes):
    options = {"train_data": directory / "data", "same_dataset_within_batch": True, **changes}
    return targets.build(directory / "out", directory=directory, **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches_from_wherever_it_goes_on(directory, workers):
    from accelerate.data_loader import skip_first_batches

    trainer = build(directory)
    sampler = PoolBatchSampler(trainer.data.pools, seed=3, world_size=1, epoch=lambda: 1)
    plain = list(DataLoader(trainer.data, batch_sampler=sampler, collate_fn=list))
    loader = DataLoader(trainer.data, batch_sampler=sampler, collate_fn=list, num_workers=workers)
    assert list(loader) == plain
    assert list(skip_first_batches(loader, 3)) == plain[3:]


def test_skipping_reads_no_row(directory, monkeypatch):
    from accelerate.data_loader import skip_first_batches

    trainer, read = build(directory), []
    original = type(trainer.data).__getitem__
    monkeypatch.setattr(
        type(trainer.data), "__getitem__", lambda self, index: read.append(index) or original(self, index)
    )
    list(skip_first_batches(trainer.get_train_dataloader(), 3))
    assert len(read) == 4


def test_the_trainer_takes_its_batches_from_one_file_each(directory):
    trainer = build(directory)
    loader = trainer.get_train_dataloader()
    queries = [{row["query"] for row in tiny.rows(count, seed=number)} for number, count in enumerate((9, 11))]
    decode = trainer.processing_class.batch_decode
    batches = [set(decode(batch["queries"]["input_ids"], skip_special_tokens=True)) for batch in loader]
    assert len(batches) == len(loader) == 2 + 2
    assert sorted(next(n for n in range(2) if batch <= queries[n]) for batch in batches) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"small_threshold": 3, "same_dataset_within_batch": None}, "--small_threshold has no effect without"),
        ({"drop_threshold": 3, "same_dataset_within_batch": None}, "--drop_threshold has no effect without"),
        ({"small_threshold": -1}, "--small_threshold -1: expected 0 or more"),
        ({"per_device_train_batch_size": 12}, "--same_dataset_within_batch: none of 2 data sets has the rows"),
        ({"small_threshold": 50, "drop_threshold": 50}, "--same_dataset_within_batch: none of 0 data sets"),
    ],
)
def test_what_cannot_work_is_refused_by_name(directory, changes, message):
    with pytest.raises(UsageError) as error:
        build(directory, **changes)
    assert message in str(error.value)


def test_data_sets_that_fill_no_batch_are_counted_in_a_warning(directory, caplog):
    with caplog.at_level(logging.WARNING):
        build(directory, per_device_train_batch_size=10)
    assert "1 of 2 data sets are not used: too few rows for a batch" in caplog.text


def test_a_batch_size_in_the_data_that_mixed_batches_ignore_is_said_once(tmp_path, caplog):
    plain = tiny.write_rows(tmp_path / "plain.jsonl", tiny.rows(5))
    sized = tiny.write_rows(tmp_path / "sized.jsonl", [{**row, "batch_size": 2} for row in tiny.rows(5)])

    def warnings(paths, same_dataset):
        caplog.clear()
        load_train_dataset(
            [str(path) for path in paths],
            EmbeddingSettings(),
            group_size=1,
            seed=0,
            cache_path=str(tmp_path / "cache"),
            same_dataset=same_dataset,
        )
        return caplog.text.count("batch_size in the data has no effect: batches are mixed")

    assert warnings([plain, sized], None) == 1
    assert warnings([plain], None) == 0
    assert warnings([plain, sized], SameDataset(4)) == 0
