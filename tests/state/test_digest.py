import torch

from resumecheck.state.digest import digest


def test_equal_bits_have_equal_digests_whatever_the_memory_layout():
    matrix = torch.randn(5, 7)
    assert digest(matrix.t().contiguous().t()) == digest(matrix)
    assert digest(matrix[:, ::2]) == digest(matrix[:, ::2].contiguous())


def test_one_ulp_changes_the_digest():
    one = torch.randn(100)
    other = one.clone()
    other[50] = torch.nextafter(other[50], torch.tensor(9.0))
    assert digest(one) != digest(other)


def test_type_and_shape_are_part_of_the_digest():
    zeros = torch.zeros(4)
    assert len({digest(zeros), digest(zeros.int()), digest(zeros.reshape(2, 2)), digest(zeros.bfloat16())}) == 4


def test_negative_zero_is_not_zero_and_nan_is_itself():
    assert digest(torch.tensor([0.0, 1.0])) != digest(torch.tensor([-0.0, 1.0]))
    assert digest(torch.tensor([float("nan"), 1.0])) == digest(torch.tensor([float("nan"), 1.0]))
    assert digest(0.0) != digest(-0.0)


def test_small_values_are_carried_in_the_digest():
    assert digest(torch.tensor(4.0)) == "float32[]=4.0"
    assert digest(5) == "=5"
    assert digest("linear") == "='linear'"


def test_nested_batches_are_digested_by_content():
    batch = {"ids": torch.arange(4), "texts": ["a", "b"], "nested": {"deep": (torch.ones(2), 3)}}
    same = {"ids": torch.arange(4), "texts": ["a", "b"], "nested": {"deep": (torch.ones(2), 3)}}
    other = {"ids": torch.arange(4), "texts": ["a", "c"], "nested": {"deep": (torch.ones(2), 3)}}
    assert digest(batch) == digest(same)
    assert digest(batch) != digest(other)


def test_sparse_and_quantized_tensors_have_digests():
    sparse = torch.eye(3).to_sparse()
    assert digest(sparse) == digest(torch.eye(3).to_sparse())
    assert digest(sparse) != digest((2 * torch.eye(3)).to_sparse())
    quantized = torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8)
    assert digest(quantized) == digest(quantized.clone())


def test_a_sharded_tensor_has_the_digest_of_its_local_shard(tmp_path):
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        whole = torch.randn(4, 3)
        sharded = distribute_tensor(whole, init_device_mesh("cpu", (1,)), [Shard(0)])
        assert digest(sharded) == digest(whole)
    finally:
        destroy_process_group()
