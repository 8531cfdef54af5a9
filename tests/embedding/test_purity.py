"""Order and content of the data are the same in every process, in every worker, from wherever a run goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash
from torch.utils.data import DataLoader

from resumecheck.embedding.dataset import load_train_dataset
from resumecheck.embedding.sampler import EpochBatchSampler, SampleId
from resumecheck.embedding.settings import EmbeddingSettings
from tests.embedding import tiny

REPOSITORY = Path(__file__).parents[2]
EPOCHS = 3


def load(path):
    return load_train_dataset(
        [str(path)], EmbeddingSettings(), group_size=4, seed=5, cache_path=str(Path(path).parent / "cache")
    )


def batches(dataset, epoch, *, workers=0, skip=0):
    """The batches of an epoch as the trainer's loader makes them, from batch `skip` on."""
    from accelerate.data_loader import skip_first_batches

    sampler = EpochBatchSampler(len(dataset), 4, seed=5, drop_last=False, epoch=lambda: epoch)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=list, num_workers=workers)
    return list(skip_first_batches(loader, skip) if skip else loader)


def digest_of_run(path):
    """One digest of everything that three epochs show to the model, in order."""
    dataset = load(path)
    return xxhash.xxh3_128_hexdigest(repr([batches(dataset, epoch) for epoch in range(EPOCHS)]).encode())


@pytest.mark.slow
def test_another_process_with_another_hash_seed_sees_the_same_data(data, tmp_path):
    code = f"from tests.embedding.test_purity import digest_of_run; print(digest_of_run({str(data)!r}))"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": seed, "HF_HOME": str(tmp_path / seed)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    digests = [run.communicate(timeout=200)[0].strip() for run in runs]
    assert digests == [digest_of_run(data)] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(data, workers):
    dataset = load(data)
    assert batches(dataset, 1, workers=workers) == batches(dataset, 1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("skip", [1, 3, 6])
def test_an_epoch_gone_on_with_is_the_tail_of_that_epoch(data, skip, workers):
    dataset = load(data)
    assert batches(dataset, 2, skip=skip, workers=workers) == batches(dataset, 2)[skip:]


def test_every_epoch_has_each_query_once_in_another_order_with_other_passages(data):
    dataset = load(data)
    epochs = [[sample for batch in batches(dataset, epoch) for sample in batch] for epoch in range(EPOCHS)]
    expected = sorted(row["query"] for row in tiny.rows(tiny.ROWS))
    assert all(sorted(sample.query for sample in epoch) == expected for epoch in epochs)
    assert len({tuple(sample.query for sample in epoch) for epoch in epochs}) == EPOCHS
    assert len({str(sorted(epoch)) for epoch in epochs}) == EPOCHS


def test_rows_added_at_the_end_leave_the_samples_of_the_others_alone(data, tmp_path):
    longer = tiny.write_rows(tmp_path / "longer.jsonl", [*tiny.rows(tiny.ROWS), *tiny.rows(3, seed=9)])
    more, fewer = load(longer), load(data)
    assert [more[SampleId(1, row)] for row in range(tiny.ROWS)] == [fewer[SampleId(1, row)] for row in range(tiny.ROWS)]


def test_skipping_reads_no_row(data, monkeypatch):
    dataset, read = load(data), []
    original = type(dataset).__getitem__
    monkeypatch.setattr(type(dataset), "__getitem__", lambda self, index: read.append(index) or original(self, index))
    batches(dataset, 0, skip=6)
    assert len(read) == tiny.ROWS - 6 * 4


def test_one_changed_byte_changes_the_fingerprint(data, tmp_path):
    content = data.read_bytes()
    copy = tmp_path / data.name
    copy.write_bytes(content)
    assert load(copy).fingerprint == load(data).fingerprint
    copy.write_bytes(content.replace(b"ba", b"bb", 1))
    assert load(copy).fingerprint != load(data).fingerprint
