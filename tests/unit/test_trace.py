"""A timeline shows when each chunk was where; real clips, real stages, and the file itself."""

import asyncio
import json
import threading
from collections import defaultdict
from xml.etree import ElementTree

import pytest

from jobs.trace import Trace
from jobs.trace_picture import COLOURS, LABEL_PX, WIDTH_PX, draw
from pipeline.analyse import analyse
from pipeline.config import Sampling
from pipeline.engine.rank import Rank
from pipeline.errors import ConfigError
from pipeline.events import Moved, Words
from pipeline.local import LocalFlow, LocalModel
from pipeline.span import Process, Span
from pipeline.stages.reading import OpenVideo
from pipeline.tasks.requests import Request
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.media_factory import CHUNKED, Clip, make
from tests.timelines import require_timeline
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

DEADLINE_S = 60
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def no_prefill_before_two_reads():
    """Who reads ahead does so however slow its thread is; who does not is waited for in vain."""
    read, run, has_read = OpenVideo.read, Rank.run, threading.Semaphore(0)
    is_ahead = []

    def noted(*call):
        chunk = read(*call)
        has_read.release()
        return chunk

    def late(*call):
        while len(is_ahead) < 2:
            is_ahead.append(has_read.acquire(timeout=DEADLINE_S))
        return run(*call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenVideo, "read", noted)
        patch.setattr(Rank, "run", late)
        yield


@pytest.fixture(scope="module")
def events(tmp_path_factory, no_prefill_before_two_reads):
    """Of one real clip in one process, as they stand in the file."""
    folder = tmp_path_factory.mktemp("traced")
    clip = make(folder, Clip(num_frames=48, fps=12, **CHUNKED))
    model = LocalModel.load(write_folder(folder / "model", max_pixels=CHUNKED_PIXELS))
    flow = LocalFlow(model, options=PlanOptions(fps=12.0))
    tasks = Tasks(asks=(Ask(question="Why?"),), sampling=Sampling(max_new_tokens=6))
    trace = Trace()
    listener = trace.listener("clip")
    asyncio.run(analyse(Source.of(clip), tasks, flow, video_id="0a", listener=listener))
    flow.close()
    trace.write(folder / "trace.json")
    return require_timeline(folder / "trace.json")


def test_chunks_go_from_stage_to_stage_while_later_ones_are_read(events):
    chunks = defaultdict(dict)
    for event in events:
        if "chunk" in event.get("args", {}):
            chunks[event["args"]["chunk"]][event["cat"]] = event
    assert len(chunks) >= 4
    for stages in chunks.values():
        read, encode, prefill = (stages[stage] for stage in ("read", "encode", "prefill"))
        assert end(read) <= encode["ts"]
        assert end(encode) <= prefill["ts"]
    assert any(chunks[k + 1]["read"]["ts"] < end(chunks[k]["prefill"]) for k in range(3))
    assert sum(stages["read"]["args"]["frames"] for stages in chunks.values()) == 48


def end(event):
    return event["ts"] + event["dur"]


def test_words_stand_on_a_track_for_each_answer_after_the_video(events):
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    words = [event for event in events if event.get("cat") == "generate"]
    assert {tracks[word["tid"]] for word in words} == {"clip: caption", "clip: ask Why?"}
    prefills = [event for event in events if event.get("cat") == "prefill"]
    assert min(word["ts"] for word in words) >= max(end(prefill) for prefill in prefills)


def test_another_machines_clock_is_set_by_the_time_of_day(tmp_path):
    here = Process("reader", 1, "a", epoch_s=1000.0)
    there = Process("encoder", 2, "b", epoch_s=400.0)
    twin = Process("decoder", 3, "a", epoch_s=1000.5)  # the time of day was set in between
    trace = Trace()
    hear = trace.listener("clip")
    work = ((here, "read", 5), (there, "encode", 606), (twin, "prefill", 7))
    for process, stage, start_s in work:
        span = Span(stage=stage, process=process, started_s=start_s, ended_s=start_s + 1)
        hear(Moved(1, span, 0, 0))
    trace.write(tmp_path / "trace.json")
    slices = [e for e in require_timeline(tmp_path / "trace.json") if e["ph"] == "X"]
    assert [(e["cat"], e["ts"], e["dur"]) for e in slices] == [
        ("read", 0.0, 1e6), ("encode", 1e6, 1e6), ("prefill", 2e6, 1e6),
    ]  # fmt: skip


def words(text, *, task_index=0, start_s=0.0, span):
    request = Request(
        kind="ground", subject=text, prompt=text, task_index=task_index, sampling=Sampling(),
        start_s=start_s, end_s=start_s,
    )  # fmt: skip
    return Words(request, "word", span)


def written(trace, folder):
    trace.write(folder / "trace.json")
    return [e for e in require_timeline(folder / "trace.json") if e["ph"] == "X"]


def test_answers_that_are_called_the_same_have_tracks_of_their_own(tmp_path):
    process, trace = Process("stream host", 1, "a", epoch_s=0.0), Trace()
    hear = trace.listener("clip")
    for task_index, start_s in ((0, 1.0), (1, 1.0), (1, 1.0000001)):
        span = Span(stage="generate", process=process, started_s=1.0 + task_index / 8, ended_s=2.0)
        hear(words("the cat", task_index=task_index, start_s=start_s, span=span))
    assert len({event["tid"] for event in written(trace, tmp_path)}) == 3


@pytest.mark.parametrize("uptime_days", [1, 60, 400])
def test_words_abut_to_the_nanosecond_however_long_a_machine_is_up(tmp_path, uptime_days):
    process, trace = Process("stream host", 1, "a", epoch_s=0.0), Trace()
    hear, now_s = trace.listener("clip"), uptime_days * 86_400.0
    for number in range(500):
        ended_s = now_s + 0.0123 + number * 1e-5
        span = Span(stage="generate", process=process, started_s=now_s, ended_s=ended_s)
        hear(words("the cat", span=span))
        now_s = ended_s
    assert len(written(trace, tmp_path)) == 500


def test_nothing_is_before_the_first_event_though_the_time_of_day_goes_back(tmp_path):
    trace = Trace()
    for number, epoch_s in enumerate((1000.0, 970.0)):
        process = Process("reader", 1, "a", epoch_s=epoch_s)
        span = Span(stage="read", process=process, started_s=10.0 + number, ended_s=11.0 + number)
        trace.listener(f"clip {number}")(Moved(1, span, 0, 0))
    assert [event["ts"] for event in written(trace, tmp_path)] == [0.0, 1e6]


def test_names_are_written_as_they_are(tmp_path):
    trace = Trace()
    process = Process("reader", 1, "a", epoch_s=0.0)
    span = Span(stage="read", process=process, started_s=0.0, ended_s=1.0)
    trace.listener("Käse \udcff.mp4")(Moved(1, span, 0, 0))
    written(trace, tmp_path)
    assert "Käse ?.mp4" in (tmp_path / "trace.json").read_text(encoding="utf-8")


def test_a_picture_has_a_row_for_each_track_and_a_bar_for_each_slice(events, tmp_path):
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": events}))
    draw(tmp_path / "trace.json", tmp_path / "trace.svg")
    root = ElementTree.parse(tmp_path / "trace.svg").getroot()  # noqa: S314 - ours
    titles = [title.text for title in root.iter(f"{SVG}title")]
    slices = [event for event in events if event["ph"] == "X"]
    assert len(titles) == len(slices)
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"reader: clip", "model: clip", "stream host: clip: ask Why?"} <= texts
    assert {"plan", "read", "encode", "prefill", "generate"} <= texts
    bars = [rect for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    reads = sum(float(bar.get("width")) for bar in bars if bar.get("fill") == COLOURS["read"])
    whole_us = max(map(end, slices))
    expected = sum(e["dur"] for e in slices if e["cat"] == "read") / whole_us
    assert reads / (WIDTH_PX - LABEL_PX - 24) == pytest.approx(expected, rel=0.1, abs=0.005)


HOSTILE = {"ph": "X", "name": "<script>", "cat": "read", "pid": 1, "tid": 1, "ts": 0, "dur": 1}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"traceEvents": []}',
        '{"traceEvents": [{"ph": "X"}]}',
        json.dumps({"traceEvents": [HOSTILE]}),
    ],
)
def test_what_is_no_timeline_is_not_drawn(tmp_path, content):
    (tmp_path / "trace.json").write_text(content)
    with pytest.raises(ConfigError, match="trace.json"):
        draw(tmp_path / "trace.json", tmp_path / "trace.svg")
    assert not (tmp_path / "trace.svg").exists()


def test_names_are_shown_as_text(tmp_path):
    named = [
        {"ph": "M", "name": kind, "pid": 1, "tid": tid, "args": {"name": "<b>\x1b"}}
        for kind, tid in (("process_name", 0), ("thread_name", 1))
    ]
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": [*named, HOSTILE]}))
    draw(tmp_path / "trace.json", tmp_path / "trace.svg")
    root = ElementTree.parse(tmp_path / "trace.svg").getroot()  # noqa: S314 - ours
    assert not list(root.iter("script"))
    assert [title.text for title in root.iter(f"{SVG}title")] == ["<script>: 0.0 ms"]


def test_nothing_heard_is_an_empty_timeline(tmp_path):
    Trace().write(tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"] == []
