"""What waits for the vision tower together is a batch of it, as large as its device wants."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.ports import Encoded
from pipeline.stages.encoding import EncodingStage
from pipeline.types import FrameChunk, TokenChunk
from tests.streams import wait

TOKENS = 64  # of a chunk


class Tower:
    """An encoder that notes how many chunks come at once."""

    num_weights = 0

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.videos: list[str] = []

    def encode(self, chunks: Sequence[FrameChunk]) -> list[TokenChunk]:
        self.batches.append(len(chunks))
        self.videos += [chunk.plan_hash for chunk in chunks]
        return [
            TokenChunk(
                plan_hash=each.plan_hash,
                window_index=each.window_index,
                index=each.index,
                tokens=torch.zeros(TOKENS, 1),
            )
            for each in chunks
        ]


def chunk(video: int) -> FrameChunk:
    return FrameChunk(
        plan_hash=str(video),
        window_index=0,
        index=0,
        geometry=GEOMETRY,
        frames=torch.zeros(2, 8 * 28, 8 * 28, 3, dtype=torch.uint8),
        is_damaged=(False, False),
    )


@pytest.mark.parametrize(
    ("batch_tokens", "batches"),
    [(10, [1] * 20), (256, [4] * 5), (1024, [4] * 5), (4096, [16, 4])],
    ids=["smaller than a chunk", "four chunks", "a CPU's", "a GPU's"],
)
def test_a_batch_has_the_tokens_that_the_profile_says_of_as_many_videos(
    batch_tokens: int, batches: list[int]
) -> None:
    tower = Tower()
    thread = ThreadPoolExecutor(1)
    stage = EncodingStage(tower, thread=thread, batch_tokens=batch_tokens)  # type: ignore[arg-type]

    async def work() -> list[Encoded[TokenChunk]]:
        return await asyncio.gather(*(stage.encode(chunk(number), left=0) for number in range(20)))

    encoded = wait(work())
    assert [each.tokens.plan_hash for each in encoded] == [str(number) for number in range(20)]
    assert tower.batches == batches


def test_a_request_is_encoded_before_the_batch_that_waited_longer() -> None:
    tower = Tower()
    stage = EncodingStage(tower, thread=ThreadPoolExecutor(1), batch_tokens=TOKENS)  # type: ignore[arg-type]

    async def work() -> None:
        batch = [stage.encode(chunk(number), left=0, yields=True) for number in range(4)]
        await asyncio.gather(*batch, stage.encode(chunk(9), left=5))

    wait(work())
    assert tower.videos == ["9", "0", "1", "2", "3"]
