import math

import pytest
import torch

from resumecheck.compare.tensors import distance
from resumecheck.compare.tolerance import parse_tolerance, ulp_distance
from resumecheck.errors import UsageError


def test_bitwise_accepts_nothing_but_equal():
    bitwise = parse_tolerance("bitwise")
    assert bitwise.equal(1.0, 1.0)
    assert bitwise.equal(math.nan, math.nan)
    assert not bitwise.equal(1.0, 1.0000001)
    assert not bitwise.equal(1.0, None)


def test_ulp_counts_float32_steps():
    one_up = float(torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)))
    assert ulp_distance(1.0, one_up) == 1
    assert parse_tolerance("ulp:1").equal(1.0, one_up)
    assert not parse_tolerance("ulp:0").equal(1.0, one_up)
    smallest = 2.0**-149
    assert ulp_distance(-smallest, smallest) == 2


def test_close_is_relative_plus_absolute():
    close = parse_tolerance("close:1e-3,1e-6")
    assert close.equal(10.0, 10.009)
    assert not close.equal(10.0, 10.02)
    assert close.equal(0.0, 9e-7)
    assert not close.equal(0.0, math.nan)


@pytest.mark.parametrize(
    "text", ["", "exact", "ulp:", "ulp:-1", "ulp:x", "close:1e-3", "close:a,b", "close:-1,0", "close:inf,0"]
)
def test_a_wrong_tolerance_is_refused_with_the_right_forms(text):
    with pytest.raises(UsageError, match="expected bitwise, noise, ulp:N or close:RTOL,ATOL"):
        parse_tolerance(text)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_distance_of_tensors_names_the_element_and_counts_ulp(dtype):
    one = torch.linspace(-2, 2, 12, dtype=dtype).reshape(3, 4)
    other = one.clone()
    other[1, 2] = torch.nextafter(other[1, 2], torch.tensor(9.0, dtype=dtype))
    found = distance(one, other)
    assert found.where == (1, 2)
    assert found.max_ulp == 1
    assert found.max_abs == abs(float(one[1, 2]) - float(other[1, 2])) > 0


def test_the_sign_of_zero_is_a_distance_in_bits_only():
    found = distance(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0]))
    assert found.max_abs == 0.0
    assert distance(torch.zeros(2), torch.zeros(3)) is None
