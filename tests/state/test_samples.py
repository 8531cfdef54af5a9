"""Samples are told apart by their content, whatever batch they are in."""

import torch

from resumecheck.state.samples import sample_digests


def batch(rows, width):
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row[0] for row in rows])}


def test_a_sample_has_the_same_digest_in_every_batch():
    one, two = sample_digests(batch([[5, 6], [7, 8, 9]], 3)), sample_digests(batch([[7, 8, 9], [5, 6]], 5))
    assert one == two[::-1]


def test_samples_that_differ_have_other_digests():
    first, second, third = sample_digests(batch([[5, 6], [5, 7], [5, 6, 0]], 3))
    assert len({first, second, third}) == 3


def test_a_tuple_of_tensors_has_samples():
    inputs, labels = torch.arange(6.0).reshape(3, 2), torch.arange(3)
    assert len(set(sample_digests((inputs, labels)))) == 3


def test_a_batch_without_samples_has_none():
    assert sample_digests({"loss_scale": 2.0}) is None
    assert sample_digests({"a": torch.zeros(2, 3), "b": torch.zeros(3)}) is None
