"""What goes into vLLM, without vLLM: slices, their names, and where their tokens stand."""

import random
from dataclasses import replace

import pytest
import torch

from actors.vllm.feed import SLICE_TOKENS, Feed, Prompt
from actors.vllm.slices import TokenSlice, prompt_positions
from pipeline.engine.layout import PromptWindow, lay_out
from pipeline.errors import StreamError
from pipeline.families.qwen2_vl.geometry import GEOMETRY
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.types import ChunkSpan, Grid, TokenChunk, Window
from tests.tiny_model import random_ids

PAD, WIDTH = 999, 3
NUM_LAYOUTS = 400


def random_media(seed: int) -> list[PromptWindow]:
    """One to three windows of any shape, in chunks of any size."""
    chance = random.Random(seed)
    return [_medium(chance, index) for index in range(chance.choice((1, 1, 1, 2, 3)))]


def _medium(chance: random.Random, index: int) -> PromptWindow:
    grid = Grid(chance.randint(1, 40), 2 * chance.randint(1, 6), 2 * chance.randint(1, 6), GEOMETRY)
    spans, start = [], 0
    while start < grid.t:
        stop = min(start + chance.choice((1, 2, 3, 7, 40)), grid.t)
        spans.append(ChunkSpan(len(spans), start, stop))
        start = stop
    window = Window(
        index=index,
        start_s=0.0,
        end_s=1.0,
        frame_pts=tuple(range(2 * grid.t)),
        times_s=tuple(map(float, range(2 * grid.t))),
        grid=grid,
        chunks=tuple(spans),
    )
    ids = tuple(random_ids(chance.randint(1, 30), seed=chance.randint(0, 99)))
    return PromptWindow(ids_before=ids, plan_hash="plan", window=window)


def chunks_of(media: list[PromptWindow]) -> list[TokenChunk]:
    return [
        TokenChunk(
            plan_hash=medium.plan_hash,
            window_index=medium.window.index,
            index=span.index,
            tokens=torch.randn(span.num_steps * medium.window.grid.tokens_per_step, WIDTH),
        )
        for medium in media
        for span in medium.window.chunks
    ]


def feed_of(media: list[PromptWindow], *, block: int) -> Feed:
    return Feed(media, video_pad_id=PAD, hidden_size=WIDTH, block=block)


def fed(media: list[PromptWindow], *, block: int) -> tuple[Feed, list[Prompt], torch.Tensor]:
    """The feed after all chunks, its updates, and all video tokens in order."""
    feed, updates, chunks = feed_of(media, block=block), list[Prompt](), chunks_of(media)
    for chunk in chunks:
        feed.take(chunk)
        while update := feed.next_update():
            updates.append(update)
    return feed, updates, torch.cat([chunk.tokens for chunk in chunks])


def positions_of(prompt: Prompt, num_tokens: int) -> tuple[torch.Tensor, int]:
    """As the model reads them: from the names alone."""
    slices = [(each.offset, TokenSlice.parse(each.slice.name)) for each in prompt.slices]
    return prompt_positions(num_tokens, slices)


@pytest.mark.parametrize("seeds", [range(start, start + 50) for start in range(0, NUM_LAYOUTS, 50)])
def test_every_token_stands_where_our_own_engine_has_it(seeds: range) -> None:
    for seed in seeds:
        media, block = random_media(seed), random.Random(seed).choice((1, 4, 16, 128))
        layout = lay_out(media)
        feed, updates, _ = fed(media, block=block)
        asked = feed.whole(random_ids(9))
        positions, following = positions_of(asked, len(asked.ids))
        expected = torch.cat([entry.positions for entry in layout.entries], dim=1)
        question = text_positions(layout.next_position, 9)
        assert torch.equal(positions, torch.cat((expected, question), dim=1))
        assert following == layout.next_position + 9
        # What is prefilled early stands where it does in the end, however much of it has come.
        slices = list[tuple[int, TokenSlice]]()
        for update in updates:
            slices += [(each.offset, each.slice) for each in update.slices]
            end = update.start + len(update.ids)
            assert torch.equal(prompt_positions(end, slices)[0], expected[:, :end])


@pytest.mark.parametrize("seed", range(20))
def test_what_is_sent_are_whole_blocks_and_what_is_not_goes_with_the_question(seed: int) -> None:
    media = random_media(seed)
    feed, updates, tokens = fed(media, block=16)
    end = 0
    for update in updates:
        assert update.start == end
        end += len(update.ids)
        assert end % 16 == 0
        assert sum(each.slice.num_tokens for each in update.slices) <= SLICE_TOKENS
    assert feed.num_tokens - end < 16
    whole = feed.whole([5])
    sent = [each for each in whole.slices if each.tokens is None]
    held = [each.tokens for each in whole.slices if each.tokens is not None]
    of_updates = [each for update in updates for each in update.slices]
    assert [each.slice for each in sent] == [each.slice for each in of_updates]
    assert torch.equal(torch.cat([*(each.tokens for each in of_updates), *held]), tokens)
    assert all(tensor.untyped_storage().nbytes() < 10**6 for tensor in held)
    pads = [token == PAD for token in whole.ids]
    assert sum(pads) == len(tokens)
    for each in whole.slices:
        assert all(pads[each.offset : each.offset + each.slice.num_tokens])


def test_a_slice_larger_than_vllm_keeps_room_for_is_sent_in_several() -> None:
    grid = Grid(1, 128, 128, GEOMETRY)
    (medium,) = random_media(3)[:1]
    window = replace(medium.window, grid=grid, chunks=(ChunkSpan(0, 0, 1),))
    _, updates, _ = fed([replace(medium, window=window)], block=16)
    assert len(updates) == 3  # of 4,096 tokens and what stands before
    assert len(updates[0].ids) == SLICE_TOKENS


def test_equal_tokens_have_equal_names_and_others_have_not() -> None:
    media = random_media(1)
    names = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        feed, _, _ = fed(media, block=16)
        names.append([each.slice.name for each in feed.whole([1]).slices])
    assert names[0] == names[1]
    assert not set(names[0]) & set(names[2])


def test_a_chunk_that_does_not_belong_is_refused_before_vllm_hears_of_it() -> None:
    media = random_media(7)
    feed, (first, *_) = feed_of(media, block=16), chunks_of(media)
    for wrong in (
        replace(first, index=1),
        replace(first, plan_hash="other"),
        replace(first, tokens=first.tokens[:-1]),
        replace(first, tokens=first.tokens[:, :-1]),
    ):
        with pytest.raises(StreamError):
            feed.take(wrong)
    feed.take(first)


@pytest.mark.parametrize(
    ("num_tokens", "slices"),
    [
        (9, [(0, TokenSlice("a", 2, 2, 2, 4, 8))]),  # begins in the middle
        (
            9,
            [(0, TokenSlice("a", 2, 2, 2, 0, 4)), (5, TokenSlice("b", 2, 2, 2, 4, 8))],
        ),  # text between
        (
            9,
            [(0, TokenSlice("a", 2, 2, 2, 0, 4)), (4, TokenSlice("b", 3, 2, 2, 4, 8))],
        ),  # another grid
        (9, [(0, TokenSlice("a", 2, 2, 2, 0, 4)), (3, TokenSlice("b", 2, 2, 2, 4, 8))]),  # overlap
        (7, [(0, TokenSlice("a", 2, 2, 2, 0, 8))]),  # longer than the prompt
    ],
)
def test_slices_that_do_not_follow_each_other_are_refused(
    num_tokens: int, slices: list[tuple[int, TokenSlice]]
) -> None:
    with pytest.raises(ValueError, match="slice"):
        prompt_positions(num_tokens, slices)


@pytest.mark.parametrize("name", ["", "5f1e", "vidray:x:1x2x2:0-5", "vidray:x:1x2x2:0-4:more"])
def test_what_is_not_named_as_ours_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="vidray|are not in"):
        TokenSlice.parse(name)
