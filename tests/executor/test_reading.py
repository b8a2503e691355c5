"""Values that are not finite are found in every dtype."""

from __future__ import annotations

import pytest
import torch

from hubmerge.executor.reading import all_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_value_of_16_bits_is_judged_as_torch_does(dtype: torch.dtype) -> None:
    values = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    finite = values.isfinite()
    assert 0 < int((~finite).sum()) < 4096
    assert all_finite(values[finite])
    assert not any(all_finite(torch.cat([values[finite][:5], one.reshape(1)])) for one in values[~finite])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_zeros_and_empty_tensors_are_finite_and_nan_is_not(dtype: torch.dtype) -> None:
    assert all_finite(torch.zeros(3, 0, dtype=dtype))
    assert all_finite(torch.tensor([[0.0, -0.0], [1.0, -1.0]]).to(dtype).T)
    assert not all_finite(torch.tensor([[1.0, torch.nan], [0.0, 2.0]]).to(dtype).T)


def test_squares_that_overflow_do_not_make_a_tensor_infinite() -> None:
    assert all_finite(torch.full((1000,), 3e38))
    assert not all_finite(torch.tensor([3e38, torch.inf]))
