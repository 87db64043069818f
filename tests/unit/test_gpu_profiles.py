"""The profiles for vLLM add up: weights and cache are within its share, and the tower has the rest.

Arithmetic: no card was at hand. What kernels and graphs need beside that is taken as 2 GB a rank.
"""

from dataclasses import dataclass

import pytest

from actors.profile import Profile
from deploy.profiles import bundled
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.model.check import share_of

GIB, GB = 2**30, 10**9
OVERHEAD_BYTES = 2 * GB
TOWER_BYTES = 1.35 * GB  # in bfloat16, of every size
TOWER_WORK_BYTES = 1.5 * GB  # a CUDA context, and 16,384 patches on their way


@dataclass(frozen=True, slots=True)
class Made:
    """What a profile was made for. stored_bytes: of a quantised language model."""

    model: str
    card_gib: int
    stored_bytes: float | None = None


MADE_FOR = {
    "gpu1-7b-24gb-vllm": Made("7B", 24),
    "gpu1-7b-vllm": Made("7B", 44),  # an L40S of 48 GB shows so much
    "gpu1-7b-80gb-vllm": Made("7B", 79),
    "gpu8-72b-vllm": Made("72B", 79),
    "gpu8-72b-twice-vllm": Made("72B", 79),
    "gpu4-72b-80gb-vllm": Made("72B", 79),
    "gpu4-72b-141gb-vllm": Made("72B", 139),
    "gpu2-72b-awq-vllm": Made("72B", 79, 42 * GB),
    "gpu1-72b-awq-vllm": Made("72B", 79, 42 * GB),
}


def test_each_profile_for_vllm_says_here_what_it_is_for() -> None:
    assert {name for name in bundled() if name.endswith("-vllm")} == set(MADE_FOR)


@pytest.mark.parametrize("name", MADE_FOR)
def test_weights_and_cache_fit_into_vllms_share_and_the_tower_into_the_rest(name: str) -> None:
    profile, made = Profile.load(bundled()[name]), MADE_FOR[name]
    pool, card_bytes = profile.decoders, made.card_gib * GIB
    share = share_of(SIZES[made.model], pool.tensor_parallel)
    weights = share.weight_bytes - TOWER_BYTES
    if made.stored_bytes is not None:
        weights = made.stored_bytes / pool.tensor_parallel
    cache = pool.kv_tokens * share.kv_bytes_per_token
    assert weights + cache + OVERHEAD_BYTES <= pool.memory_share * card_bytes
    assert profile.tower_memory_share is not None
    assert profile.tower_memory_share * card_bytes >= TOWER_BYTES + TOWER_WORK_BYTES
    assert profile.encoders.batch_tokens == 4096


@pytest.mark.parametrize("name", MADE_FOR)
def test_as_many_videos_as_it_lets_in_have_room_for_a_short_clip_each(name: str) -> None:
    profile = Profile.load(bundled()[name])
    tokens = profile.decoders.num_replicas * profile.decoders.kv_tokens
    needed = 4_485 + profile.decoders.question_tokens  # 30 frames of 360p, and what is asked
    assert profile.videos_in_flight * needed <= tokens
