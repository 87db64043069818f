"""The progress view's figures, from spans as stages would tell them."""

import pytest

from jobs.gauges import WINDOW_S, Gauges, bottleneck
from pipeline.events import Moved, Planned, Words
from pipeline.span import Process, Span
from pipeline.tasks.requests import Request

READER, ENCODER, DECODER, TWIN = (
    Process(name, number, "here", epoch_s=0.0)
    for number, name in enumerate(("reader-0", "encoder-0", "decoder-0", "encoder-1"))
)
ELSEWHERE = Process("encoder-2", 7, "there", epoch_s=-500.0)


def spells(stage, process, *times_s):
    return [Span(stage=stage, process=process, started_s=a, ended_s=b) for a, b in times_s]


PIPELINES = {
    "a slow encoder": (
        "encode",
        [
            *spells("read", READER, (0, 1), (3, 4), (6, 7)),
            *spells("encode", ENCODER, (1, 4), (4, 7), (7, 10)),
            *spells("prefill", DECODER, (4, 5), (7, 8)),
        ],
    ),
    "a slow reader": (
        "read",
        [
            *spells("read", READER, (0, 3.5), (3.5, 7), (7, 10)),
            *spells("encode", ENCODER, (3.5, 5), (7, 8)),
        ],
    ),
    "words that take long": (
        "generate",
        [*spells("read", READER, (0, 1)), *spells("generate", DECODER, (2, 5), (5, 9))],
    ),
    "one batch of four is one piece of work": (
        "prefill",
        [
            *spells("encode", ENCODER, *[(0, 4)] * 4),
            *spells("prefill", DECODER, (0, 3), (3, 7)),
        ],
    ),
    "two encoders that take turns hold nobody up": (
        "prefill",
        [
            *spells("encode", ENCODER, (0, 5)),
            *spells("encode", TWIN, (5, 10)),
            *spells("prefill", DECODER, (1, 7)),
        ],
    ),
    "another machine's clock": (
        "encode",
        [*spells("read", READER, (0, 5)), *spells("encode", ELSEWHERE, (500, 509))],
    ),
    "nobody is busy": (None, spells("read", READER, (0, 2), (5, 6))),
    "work of long ago": (None, spells("read", READER, (-20, 1))),
    "nothing at all": (None, []),
}


@pytest.mark.parametrize(("slowest", "spans"), PIPELINES.values(), ids=PIPELINES)
def test_the_bottleneck_is_the_stage_that_never_waits(slowest, spans):
    assert bottleneck(spans, since_s=0.0, until_s=10.0) == slowest


class Gauged:
    """Gauges whose time is set by hand."""

    def __init__(self):
        self.now_s = 0.0
        self.gauges = Gauges(clock=lambda: self.now_s)

    def moved(self, stage, process, until_s, *, chunk=0, video="a", **amounts):
        span = Span(stage=stage, process=process, started_s=self.now_s, ended_s=until_s, **amounts)
        self.now_s = until_s
        self.gauges.hear(video, Moved(1, span, 0, chunk))


def test_what_holds_the_fleet_up_is_said_before_cache_rates_and_bytes():
    gauged = Gauged()
    gauged.moved("read", READER, 1.0, num_frames=8, num_bytes=3 << 20)
    gauged.moved("encode", ENCODER, 4.0, num_tokens=40, num_bytes=1 << 20)
    gauged.moved("read", READER, 4.5, chunk=1, num_frames=8, num_bytes=3 << 20)
    gauged.moved("prefill", DECODER, 5.0, num_tokens=40, kv_share=0.25)
    assert gauged.gauges.cells() == [
        "all wait for encode",
        "KV 25%",
        "3 frames/s read",
        "8 tokens/s encoded",
        "8 tokens/s prefilled",
        "0 words/s",
        "3.0 MiB on the way",
    ]


def test_a_video_that_is_done_or_starts_anew_has_nothing_on_the_way():
    gauged = Gauged()
    for video in ("a", "b"):
        gauged.moved("read", READER, gauged.now_s + 1, video=video, num_bytes=1 << 20)
    assert "2.0 MiB on the way" in gauged.gauges.cells()
    span = Span(stage="plan", process=READER, started_s=2.0, ended_s=2.0)
    gauged.gauges.hear("b", Planned(media=None, plan=None, num_steps=1, span=span))
    assert "1.0 MiB on the way" in gauged.gauges.cells()
    gauged.gauges.done("a")
    assert "0.0 MiB on the way" in gauged.gauges.cells()
    gauged.gauges.done("b")
    assert gauged.gauges.cells() == []


def test_rates_are_of_now():
    gauged = Gauged()
    gauged.moved("read", READER, 1.0, num_frames=1000)
    gauged.now_s += WINDOW_S + 1
    words = Request(kind="caption", subject="", prompt="", sampling=None, start_s=0, end_s=1)
    span = Span(stage="generate", process=DECODER, started_s=gauged.now_s - 8, ended_s=gauged.now_s)
    for _ in range(20):
        gauged.gauges.hear("a", Words(words, "so", span))
    assert gauged.gauges.cells()[0] == "all wait for generate"
    assert {"0 frames/s read", "2 words/s"} <= set(gauged.gauges.cells())
