import itertools
import random

import pytest
import torch

from resumecheck.state import digest as digest_module
from resumecheck.state.device_digest import ROW, SLAB, Transfer, hash_words, single_value, single_words, weights
from resumecheck.state.digest import digest, digest_into

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def splitmix64(count):
    """The generator, from its definition."""
    state = 0
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        yield mixed ^ (mixed >> 31)


def slow_hash(raw: bytes) -> list[int]:
    """The hash of bytes, written with Python's integers."""
    odd = [weight | 1 for weight in splitmix64(2 * ROW)]
    tables = odd[:ROW], odd[ROW:]
    while True:
        raw += bytes(-len(raw) % 4)
        numbers = [int.from_bytes(raw[at : at + 4], "little", signed=True) for at in range(0, len(raw), 4)]
        rows = [numbers[at : at + ROW] for at in range(0, len(numbers), ROW)] or [[]]
        sums = [
            sum(number * weight for number, weight in zip(row, table, strict=False)) % 2**64
            for row in rows
            for table in tables
        ]
        if len(rows) == 1:
            return sums
        raw = b"".join(number.to_bytes(8, "little") for number in sums)


def hashed(tensor):
    return tuple(word % 2**64 for word in hash_words(tensor).tolist())


def raw_bytes(tensor):
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def some(dtype, *shape):
    generator = torch.Generator().manual_seed(3)
    if dtype.is_complex or dtype.is_floating_point:
        return torch.randn(*shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 2, 3, 5, 4097])
def test_the_hash_is_what_python_integers_make_of_the_bytes(dtype, count):
    tensor = some(dtype, count)
    assert list(hashed(tensor)) == slow_hash(raw_bytes(tensor))


@pytest.mark.parametrize("count", [ROW - 1, ROW, ROW + 1, 3 * ROW + 7, 1100 * ROW + 1, SLAB * ROW, (SLAB + 1) * ROW])
def test_rows_slabs_and_levels_are_put_together_as_in_the_definition(count):
    tensor = some(torch.int32, count)
    assert list(hashed(tensor)) == slow_hash(raw_bytes(tensor))


def test_the_memory_layout_does_not_matter():
    matrix = some(torch.float32, 50, 170)
    assert hashed(matrix.t()) == hashed(matrix.t().contiguous())
    assert hashed(matrix[:, ::2]) == hashed(matrix[:, ::2].contiguous())
    flat = some(torch.int8, 101)
    assert hashed(flat[1:]) == hashed(flat[1:].clone())
    assert hashed(flat[1:97]) == hashed(flat[1:97].clone())
    lazy = some(torch.complex64, 9).conj()
    assert hashed(lazy) == hashed(lazy.resolve_conj())


@pytest.mark.parametrize("count", [2, 300, 2 * ROW, 2 * ROW + 300], ids=str)
def test_a_change_of_any_kind_changes_both_sums(count):
    tensor = some(torch.float32, count)
    draw = random.Random(count)
    seen = {raw_bytes(tensor): hashed(tensor)}
    for first, second in [(0, 1), (0, count - 1), *(draw.sample(range(count), 2) for _ in range(40))]:
        swapped, one_sign, two_signs, ulp = (tensor.clone() for _ in range(4))
        swapped[[first, second]] = tensor[[second, first]]
        one_sign[first] *= -1
        two_signs[[first, second]] *= -1
        ulp[first] = torch.nextafter(tensor[first], torch.tensor(9.0))
        for changed in (swapped, one_sign, two_signs, ulp):
            assert all(a != b for a, b in zip(hashed(changed), hashed(tensor), strict=True))
            seen[raw_bytes(changed)] = hashed(changed)
    assert len(set(seen.values())) == len(seen)


def test_every_pair_of_signs_of_a_row_and_every_rotation_of_rows_is_seen():
    zeros = torch.zeros(ROW)
    signs = {hashed(zeros)}
    # A changed sign adds 2**31 * w: a pair vanishes only if two weights agree, or add up to 0, modulo 2**33.
    for table in weights(torch.device("cpu")).tolist():
        low = [weight % 2**33 for weight in table]
        assert len({*low, *(-weight % 2**33 for weight in low)}) == 2 * ROW
    for first in range(0, ROW, 97):
        negative = zeros.clone()
        negative[first] = -0.0
        signs.add(hashed(negative))
    assert len(signs) == 1 + len(range(0, ROW, 97))
    rows = some(torch.float32, 6, ROW)
    orders = {hashed(rows[list(order)]) for order in itertools.permutations(range(6))}
    assert len(orders) == 720


def test_values_of_one_element_come_back_from_their_bytes():
    for dtype in DTYPES:
        tensor = some(dtype, 1)
        words = tuple(single_words(tensor).tolist())
        assert single_value(words, dtype) == tensor.item()
    assert repr(single_value(tuple(single_words(torch.tensor(-0.0)).tolist()), torch.float32)) == "-0.0"
    assert single_value(tuple(single_words(torch.tensor(2**63 - 1)).tolist()), torch.int64) == 2**63 - 1
    assert single_value(
        tuple(single_words(torch.tensor(1 + 2j, dtype=torch.complex128)).tolist()), torch.complex128
    ) == (1 + 2j)


def test_digests_by_words_tell_type_shape_sign_of_zero_and_order(monkeypatch):
    monkeypatch.setattr(digest_module, "on_device", lambda tensor: True)
    zeros = torch.zeros(4)
    others = (zeros.int(), zeros.reshape(2, 2), zeros.bfloat16(), -zeros, torch.zeros(5), torch.zeros(0))
    assert digest(zeros).startswith("float32[4]#words:")
    assert len({digest(zeros), *map(digest, others)}) == 1 + len(others)
    assert digest(torch.tensor([1.0, 2.0])) != digest(torch.tensor([2.0, 1.0]))
    assert digest(torch.tensor([[1.0, 2.0]]).t()) == digest(torch.tensor([[1.0], [2.0]]))
    assert digest({"a": zeros, "b": [zeros, 1]}) != digest({"a": zeros, "b": [-zeros, 1]})
    assert digest(torch.tensor(4.0)) == "float32[]=4.0"


def test_all_digests_come_with_one_copy_and_in_the_order_of_the_calls(monkeypatch):
    monkeypatch.setattr(digest_module, "on_device", lambda tensor: True)
    values = {"a": torch.arange(5), "b": {"c": [torch.ones(3), "text", 4]}, "d": torch.tensor(5), "e": torch.ones(2, 2)}
    copies = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda tensors: copies.append(len(tensors)) or stack(tensors))
    found, transfer = {}, Transfer()
    for name, value in values.items():
        digest_into(found, name, value, transfer)
    assert not copies
    transfer.fetch()
    assert copies == [4]
    assert list(found) == list(values)
    assert found == {name: digest(value) for name, value in values.items()}


@needs_cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_has_the_same_digest_on_a_gpu_and_moved_to_the_cpu(dtype):
    for shape in ((), (1,), (3,), (5, 1001), (3, ROW), (SLAB + 3, ROW)):
        tensor = some(dtype, *shape)
        on_device = tensor.cuda()
        assert digest(on_device) == digest(tensor)
        assert digest({"batch": [on_device, 1]}) == digest({"batch": [tensor, 1]})
        if tensor.numel() > 1:
            assert list(hashed(on_device)) == list(hashed(tensor))


@needs_cuda
def test_on_a_gpu_all_digests_of_a_step_cost_one_wait():
    tensors = {str(size): torch.randn(size, device="cuda") for size in range(1, 400)}
    digest(torch.ones(2, device="cuda"))  # The tables of weights are copied to the device once.
    found, transfer = {}, Transfer()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for name, tensor in tensors.items():
            digest_into(found, name, tensor, transfer)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    transfer.fetch()
    assert found == {name: digest(tensor.cpu()) for name, tensor in tensors.items()}
