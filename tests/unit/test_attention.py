"""Attention where keys and queries share a large bias, as in real models: by its definition."""

import pytest
import torch

from jobs.lab.gpu.attention_check import attended, errors, exact, inputs
from pipeline.model import attention

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@torch.inference_mode()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_biased_keys_cost_no_accuracy_whole_in_parts_or_over_a_shared_prefix(
    device: str, dtype: torch.dtype, bound: float
) -> None:
    for case, error in errors(device, dtype, lengths=(1, 2, 9, 300), heads=(4, 2)):
        assert error < bound, case


@torch.inference_mode()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_so_it_is_with_16384_keys(device: str, dtype: torch.dtype, bound: float) -> None:
    for bias in (0.0, 32.0):
        query, *held = inputs(16_384, bias=bias, heads=(2, 1), dtype=dtype, device=device)
        parts = (4096, 8192, 4032, 64)
        found = attended(query[-64:], *held, parts=parts, forked_after=3).float()
        expected = exact(query[-64:], *held)
        assert float((found - expected).norm() / expected.norm()) < bound


@torch.inference_mode()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_log_sums_are_those_of_the_definition(
    device: str, is_causal: bool, dtype: torch.dtype
) -> None:
    query = torch.randn(1, 6, 5, 16, device=device).to(dtype)
    keys, values = torch.randn(2, 2, 5 if is_causal else 9, 16, device=device).to(dtype)
    output, log_sums = attention._attention(query, keys, values, is_causal=is_causal)
    scores = query[0].float() @ keys.float().repeat_interleave(3, 0).transpose(1, 2) / 4
    if is_causal:
        scores = scores.masked_fill(torch.ones(5, 5, device=device).triu(1).bool(), -torch.inf)
    expected = scores.softmax(-1) @ values.float().repeat_interleave(3, 0)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(output[0].float(), expected, atol=tolerance, rtol=tolerance)
    assert log_sums.dtype == torch.float32
    torch.testing.assert_close(log_sums[0], scores.logsumexp(-1), atol=tolerance, rtol=tolerance)
