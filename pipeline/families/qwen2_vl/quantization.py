"""How a checkpoint's language model was rounded, as config.json says; vLLM computes with it."""

from typing import Any

from pipeline.config import Quantization
from pipeline.errors import CheckpointError
from pipeline.model.folder import HubFields, parse_fields, without_nulls

SERVED = ("awq", "gptq", "fp8", "compressed-tensors")  # by vLLM
BITS = {"fp8": 8}  # of methods that do not say


class _Weights(HubFields):
    num_bits: int | None = None
    type: str = "int"


class _Scheme(HubFields):
    weights: _Weights | None = None


class _Fields(HubFields):
    quant_method: str = "an unnamed method"
    bits: int | None = None
    config_groups: dict[str, _Scheme] = {}


def read_quantization(content: Any, file: str) -> Quantization | None:
    """Of the section `quantization_config`; None without one. Refuses what nobody here serves."""
    if not content:
        return None
    fields = parse_fields(_Fields, file, without_nulls(content))
    method = fields.quant_method
    if method not in SERVED:
        served = ", ".join(SERVED)
        raise CheckpointError(file, f"quantised by {method}; vLLM is given {served}")
    stated = [group.weights.num_bits for group in fields.config_groups.values() if group.weights]
    bits = fields.bits or next(filter(None, stated), None) or BITS.get(method)
    return Quantization(method=method, bits=bits)
