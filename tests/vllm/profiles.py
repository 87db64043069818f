"""Small deployments with vLLM on a CPU."""

from actors.fleet import Fleet
from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from tests.port_contract import LIMITS
from tests.tiny_model import Tiny

SHAPE = Tiny(seed=3, head_dim=32)  # no kernel of vLLM's on a CPU takes heads of 16


def vllm_profile(
    *, kv_tokens: int = LIMITS.max_tokens, question_tokens: int = LIMITS.question_tokens
) -> Profile:
    return Profile(
        readers=ReaderPool(num_cpus=0.1),
        encoders=EncoderPool(num_cpus=0.1),
        decoders=DecoderPool(
            engine="vllm", num_cpus=0.1, kv_tokens=kv_tokens, question_tokens=question_tokens
        ),
        stall_s=300,
    )


async def started(fleet: Fleet) -> None:
    """Return when vLLM has loaded, which takes longer than a test of what it does."""
    async for _ in fleet.starting():
        pass
