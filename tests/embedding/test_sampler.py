from resumecheck.embedding.draws import ORDER, POSITIVE, permutation, words
from resumecheck.embedding.sampler import EpochBatchSampler, SampleId, batches_of_epoch


def order(epoch, *, seed=3, rows=50, size=8, drop_last=False):
    return list(batches_of_epoch(rows, size, seed=seed, epoch=epoch, drop_last=drop_last))


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    import random

    import numpy as np
    import torch

    first = order(1)
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    order(0)
    assert order(1) == first
    assert order(1, seed=4) != first


def test_making_an_order_draws_nothing_from_the_global_streams():
    import random

    import numpy as np
    import torch

    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    order(0)
    after = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_each_epoch_has_every_row_once_and_an_order_of_its_own():
    rows = [[sample.row for batch in order(epoch) for sample in batch] for epoch in range(3)]
    assert all(sorted(found) == list(range(50)) for found in rows)
    assert rows[0] != rows[1] != rows[2] != rows[0]


def test_a_sample_id_carries_its_epoch():
    assert {sample.epoch for batch in order(4) for sample in batch} == {4}
    assert isinstance(order(4)[0][0], SampleId)


def test_the_last_batch_is_short_or_left_out():
    assert [len(batch) for batch in order(0)] == [8] * 6 + [2]
    assert [len(batch) for batch in order(0, drop_last=True)] == [8] * 6


def test_the_length_is_the_number_of_batches():
    for rows, size in ((50, 8), (48, 8), (3, 8)):
        for drop_last in (True, False):
            sampler = EpochBatchSampler(rows, size, seed=0, drop_last=drop_last, epoch=lambda: 0)
            assert len(sampler) == len(list(sampler))


def test_the_sampler_asks_for_the_epoch_when_the_epoch_starts():
    epochs = iter((0, 5))
    sampler = EpochBatchSampler(50, 8, seed=3, drop_last=False, epoch=lambda: next(epochs))
    assert [list(sampler), list(sampler)] == [order(0), order(5)]


def test_skipping_batches_as_accelerate_does_keeps_the_epoch():
    # accelerate builds a new loader for the skip and calls set_epoch(0) on whatever has that method.
    from accelerate.data_loader import skip_first_batches
    from torch.utils.data import DataLoader

    sampler = EpochBatchSampler(50, 8, seed=3, drop_last=False, epoch=lambda: 2)
    loader = DataLoader(_Ids(), batch_sampler=sampler, collate_fn=list)
    assert list(skip_first_batches(loader, 3)) == order(2)[3:]


def test_two_processes_share_the_batches_of_an_epoch_without_overlap():
    from accelerate.data_loader import BatchSamplerShard

    sampler = EpochBatchSampler(48, 8, seed=3, drop_last=False, epoch=lambda: 1)
    shares = [list(BatchSamplerShard(sampler, num_processes=2, process_index=rank)) for rank in (0, 1)]
    assert shares[0] + shares[1] == [*order(1, rows=48)[0::2], *order(1, rows=48)[1::2]]


def test_draws_for_different_rows_epochs_seeds_and_purposes_differ():
    keys = [
        {"seed": seed, "purpose": purpose, "epoch": epoch, "row": row}
        for seed in (0, 1)
        for purpose in (ORDER, POSITIVE)
        for epoch in (0, 1)
        for row in (0, 1)
    ]
    assert len({tuple(words(3, **key)) for key in keys}) == len(keys)


def test_a_draw_is_the_same_on_every_machine():
    assert [int(word) for word in words(2, seed=3, purpose=ORDER, epoch=1, row=2)] == [
        12502759358979644384,
        7727852865489443563,
    ]
    assert permutation(6, seed=3, purpose=ORDER, epoch=1).tolist() == [3, 1, 4, 2, 0, 5]


def test_a_negative_seed_is_a_seed():
    assert sorted(permutation(6, seed=-1, purpose=ORDER, epoch=0)) == list(range(6))


class _Ids:
    def __len__(self):
        return 50

    def __getitem__(self, index):
        return index
