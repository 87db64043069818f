"""How a profile starts vLLM."""

import os
from pathlib import Path
from typing import Any

import torch

from actors.profile import Profile
from actors.vllm.async_engine import VLLMEngine
from actors.vllm.error_log import ErrorLog
from pipeline.config import ModelConfig
from pipeline.errors import ConfigError, Transient

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # it would tell a server of its makers' what machine this is
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # The second one needs Triton, which has no CPU backend: whether it is exact nobody has seen.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
MAX_BLOCK_TOKENS = 128  # of all its kernels
CPU_BLOCK_TOKENS = 32  # as small as its kernels take: what is left of a block is computed again


def start_engine(folder: Path, profile: Profile, *, config: ModelConfig) -> VLLMEngine:
    """vLLM for this profile's replica, loaded and ready."""
    pool = profile.decoders
    environment = ENVIRONMENT | {"VLLM_RAY_PER_WORKER_GPUS": str(pool.num_gpus)}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {
        "dtype": profile.dtype,
        "tensor_parallel_size": pool.tensor_parallel,
        "max_model_len": min(config.max_positions, pool.kv_tokens),
        # As much as the profile says, whatever a card's other processes happen to hold just then.
        "kv_cache_memory_bytes": _kv_bytes(profile, config),
    }
    if profile.device == "cpu":  # to compare with and to test on
        if config.head_dim % 32 and config.head_dim not in (80, 112):
            raise ConfigError(f"vLLM has no CPU kernel for heads of {config.head_dim}")
        os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")
        # It would bind its threads to cores that others compute on.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ["OMP_NUM_THREADS"] = str(pool.num_threads)  # of the processes that it starts
        # Or the first question waits for a compiler, which need not be there, to count scores.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        options |= {"enforce_eager": True, "block_size": CPU_BLOCK_TOKENS}
    else:
        options["gpu_memory_utilization"] = pool.memory_share
        if pool.tensor_parallel > 1:
            options["distributed_executor_backend"] = "ray"  # in the replica's placement group
    log = ErrorLog.here()
    try:
        return VLLMEngine.start(folder, **options)
    except Exception as error:
        reason = log.last_error() or " ".join(str(error).split())
        raise Transient(f"vLLM cannot start: {reason}") from error


def _kv_bytes(profile: Profile, config: ModelConfig) -> int:
    """Of one rank, for the profile's tokens and one block more, which vLLM keeps for itself."""
    pool = profile.decoders
    num_tokens = pool.kv_tokens + MAX_BLOCK_TOKENS
    element_bytes = getattr(torch, profile.dtype).itemsize
    num_kv_heads = -(-config.num_kv_heads // pool.tensor_parallel)  # ranks may hold copies
    all_heads = config.kv_bytes_per_token(element_bytes=element_bytes) * num_tokens
    return all_heads * num_kv_heads // config.num_kv_heads
