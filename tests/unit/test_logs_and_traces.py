"""A log line says what it is about, wherever it is written; a video is one trace."""

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from jobs import cli
from jobs.progress import ProgressOptions, said
from jobs.sight.spans import VideoSpans
from pipeline.about import about, ids_now
from pipeline.analyse import analyse
from pipeline.config import EngineLimits, Sampling
from pipeline.errors import ConfigError
from pipeline.local import LocalFlow, LocalModel
from pipeline.tasks.records import Record
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.threads import in_thread
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.endpoint import tiny_endpoint
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

log = logging.getLogger("vidray.test")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny", max_pixels=CHUNKED_PIXELS)


@contextmanager
def lines(path: Path) -> Iterator[list[dict[str, object]]]:
    """What is logged meanwhile, once it is over."""
    found: list[dict[str, object]] = []
    with said(ProgressOptions(quiet=True, log_file=path, log_json=True)):
        yield found
    found += map(json.loads, path.read_text().splitlines())


def test_a_line_has_the_ids_of_what_it_is_about_in_tasks_and_threads(tmp_path: Path) -> None:
    async def work(video: str) -> None:
        with about(video=video):
            await asyncio.sleep(0)
            log.info("begun")
            await in_thread(log.warning, "asking %s again", "store")

    async def both() -> None:
        await asyncio.gather(work("a"), work("b"))

    with lines(tmp_path / "log") as found, about(job="j1", part=3):
        asyncio.run(both())
        log.info("over")
    kept = [{key: line.get(key) for key in ("job", "part", "video", "message")} for line in found]
    for video in ("a", "b"):
        for message in ("begun", "asking store again"):
            assert {"job": "j1", "part": 3, "video": video, "message": message} in kept
    assert kept[-1] == {"job": "j1", "part": 3, "video": None, "message": "over"}
    assert ids_now() == {}


def test_an_error_and_an_odd_name_stay_one_line(tmp_path: Path) -> None:
    with lines(tmp_path / "log") as found:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.exception("caf\udce9\n\x1b[31m")
    (line,) = found
    assert line["message"] == "caf\udce9\n\x1b[31m"
    assert "ValueError: two" in str(line["error"])
    assert line["level"] == "error"


def test_json_lines_without_a_file_are_refused() -> None:
    with pytest.raises(ValueError, match="log_json"):
        ProgressOptions(log_json=True)


def test_a_jobs_log_names_job_part_and_video(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clips").mkdir()
    make(tmp_path / "clips", Clip(num_frames=24))
    file = tmp_path / "log"
    command = ["vidray", "batch", "run", tmp_path / "clips", tmp_path / "out", "--model", model]
    flags = ["--in-process", "--verbose", "--log-file", file, "--log-json", "--max-new-tokens", 4]
    monkeypatch.setattr(sys, "argv", [*map(str, [*command, *flags])])
    assert cli._run() == 0
    found = [json.loads(line) for line in file.read_text().splitlines()]
    (row,) = (line for line in found if ".mp4: " in line["message"])
    assert {"job", "part", "video"} <= set(row)
    (part,) = (line for line in found if "is committed" in line["message"])
    assert (part["job"], part["part"]) == (row["job"], 0)
    assert all("job" in line for line in found if line["message"].startswith("job "))


def test_a_video_is_one_trace_of_its_stages_and_answers(tmp_path: Path, model: Path) -> None:
    spans, record = traced(make(tmp_path, Clip(num_frames=48, fps=12, **CHUNKED)), model)
    (root,) = (span for span in spans if span.parent is None)
    assert root.name == "video"
    assert root.attributes["vidray.video"] == record.video_id
    inner = [span for span in spans if span is not root]
    assert {span.parent.span_id for span in inner} == {root.context.span_id}
    assert all(root.start_time <= span.start_time <= span.end_time for span in inner)
    assert root.end_time == max(span.end_time for span in inner)
    count = Counter(span.name for span in inner)
    assert count["read"] == count["encode"] == count["prefill"] >= 4
    assert count["plan"] == 1
    assert count["answer"] == 2  # the caption and the question
    assert record.plan is not None
    for stage in ("encode", "prefill"):
        tokens = sum(span.attributes["vidray.tokens"] for span in inner if span.name == stage)
        assert tokens == record.plan.num_tokens
    assert "Why?" not in str([span.to_json() for span in spans])  # nobody's words


def test_a_video_that_failed_is_a_trace_that_says_so_or_none(tmp_path: Path, model: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    assert traced(bad, model)[0] == []  # it came to no work
    cut = make(tmp_path, Clip(num_frames=48, fps=12, **CHUNKED))
    tasks = Tasks(caption=None, asks=(Ask(question="Why? " * 9_000),))
    spans, record = traced(cut, model, tasks)
    (root,) = (span for span in spans if span.parent is None)
    assert root.attributes["vidray.code"] == record.code == "prompt_too_long"
    assert not root.status.is_ok


def test_an_answer_of_the_endpoint_is_a_trace_too(tmp_path: Path, model: Path) -> None:
    clip = make(tmp_path, Clip(num_frames=24, fps=12, **CHUNKED))
    spans, exporter = in_memory()
    with (
        tiny_endpoint(model, tmp_path / "data", spans=spans) as address,
        httpx2.Client(base_url=address, timeout=60) as web,
    ):
        files = {"file": ("clip.mp4", clip.read_bytes())}
        file = web.post("/v1/files", data={"purpose": "user_data"}, files=files).json()
        stream = web.post("/v1/streams", json={"source": {"file_id": file["id"]}}).json()
        url = f"/v1/streams/{stream['id']}"
        web.post(f"{url}/ask", json={"question": "Why?"})
        first = Counter(span.name for span in exporter.get_finished_spans())
        exporter.clear()
        web.post(f"{url}/ground", json={"query": "a cat"})
        second = Counter(span.name for span in exporter.get_finished_spans())
    assert first["video"] == second["video"] == 1
    assert first["read"] == first["prefill"] > 0
    assert first["answer"] == second["answer"] == 1


def test_without_the_extra_a_trace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.sight.spans import video_spans

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"vidray\[otel\]"), video_spans(True):
        pass


def traced(
    clip: Path, model: Path, tasks: Tasks | None = None
) -> tuple[list[ReadableSpan], Record]:
    spans, exporter = in_memory()
    limits = EngineLimits(max_tokens=16_384, question_tokens=2_048)
    flow = LocalFlow(LocalModel.load(model, limits=limits), options=PlanOptions(fps=12.0))
    tasks = tasks or Tasks(asks=(Ask(question="Why?"),), sampling=Sampling(max_new_tokens=4))
    try:
        record = asyncio.run(
            analyse(Source.of(clip), tasks, flow, video_id="v", listener=spans.listener("v"))
        )
    finally:
        flow.close()
    spans.end_row("v", record)
    return list(exporter.get_finished_spans()), record


def in_memory() -> tuple[VideoSpans, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return VideoSpans(provider.get_tracer("test")), exporter
