"""Cuts frames into windows, and windows into the chunks that travel through the pipeline."""

from pipeline.errors import BadInput, FailureCode
from pipeline.types import ChunkSpan, Geometry, Size, Window
from pipeline.video.timeline import Samples

CHUNK_TOKENS = 1024  # that travel together, about
# Stages work side by side only if there is something to hand over: short clips are cut finer, but
# not so fine that handing over takes longer than the work: 256 tokens are 1.4 TFLOP of the tower,
# by arithmetic some 5 ms of a large GPU, and a hand-over is a few messages of about a millisecond.
MIN_CHUNKS = 4
FINE_TOKENS = 256


def window_spans(num_steps: int, *, max_steps: int, overlap_steps: int) -> list[range]:
    """Cover num_steps temporal patches by the fewest windows of max_steps, lengths within one.

    Neighbours share exactly overlap_steps. Even lengths spare the last window from being a scrap
    of a second without its context. Raises BadInput if they would share more than half.
    """
    if num_steps <= max_steps:
        return [range(num_steps)]
    if 2 * overlap_steps > max_steps:
        detail = f"an overlap of {overlap_steps} temporal patches is over half a window"
        raise BadInput(FailureCode.TOKEN_BUDGET, f"{detail}; this video's windows hold {max_steps}")
    unshared = num_steps - overlap_steps
    count = -(-unshared // (max_steps - overlap_steps))
    starts = [index * unshared // count for index in range(count + 1)]
    return [
        range(start, stop + overlap_steps)
        for start, stop in zip(starts[:-1], starts[1:], strict=True)
    ]


def chunk_spans(
    num_steps: int, *, tokens_per_step: int, chunk_tokens: int
) -> tuple[ChunkSpan, ...]:
    """Cut temporal patches into equal chunks near chunk_tokens, the last one perhaps shorter.

    Equal, because the vision tower is bit-exact at a fixed batch shape. At least MIN_CHUNKS chunks
    as long as those have FINE_TOKENS.
    """
    finest = max(num_steps // MIN_CHUNKS, FINE_TOKENS // tokens_per_step)
    steps = max(1, min(chunk_tokens // tokens_per_step, finest))
    starts = range(0, num_steps, steps)
    return tuple(
        ChunkSpan(index, start, min(start + steps, num_steps)) for index, start in enumerate(starts)
    )


def cut_windows(
    samples: Samples,
    size: Size,
    *,
    geometry: Geometry,
    start_s: float,
    end_s: float,
    max_steps: int | None,
    overlap_steps: int,
    chunk_tokens: int,
) -> tuple[Window, ...]:
    """Make the windows of padded samples; each lasts until the frame after its last.

    max_steps: temporal patches of one window; None is one window for all.
    """
    temporal, num_steps = geometry.temporal, geometry.num_steps(len(samples.pts))
    spans = window_spans(num_steps, max_steps=max_steps or num_steps, overlap_steps=overlap_steps)
    bounds_s = (start_s, *samples.times_s[1:], end_s)
    windows = []
    for index, span in enumerate(spans):
        first, stop = span.start * temporal, span.stop * temporal
        grid = geometry.grid(len(span), size)
        windows.append(
            Window(
                index=index,
                start_s=bounds_s[first],
                end_s=bounds_s[stop],
                frame_pts=samples.pts[first:stop],
                times_s=samples.times_s[first:stop],
                grid=grid,
                chunks=chunk_spans(
                    len(span), tokens_per_step=grid.tokens_per_step, chunk_tokens=chunk_tokens
                ),
            )
        )
    return tuple(windows)
