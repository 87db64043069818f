"""--otel: a trace of each video for an OpenTelemetry collector, of the same events as --trace.

The video is the root; under it are its plan, each chunk's read, encode and prefill, and each
answer from its question to its last word. Where it goes is said by the environment variables of
OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT, ...).
Not covered: what is asked and answered is not in it, nor more of a place than the video's name.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.events import Event, Listener, Moved, Planned, Words, ignore
from pipeline.span import Span
from pipeline.tasks.records import Record

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

MAX_QUEUED = 65_536  # spans; of a long video thousands come at once
Piece = tuple[str, float, float, dict[str, Any]]  # name, Unix times of start and end, attributes


class VideoSpans:
    """Hears of videos; each becomes a trace when its work is done. Without a tracer, nothing."""

    def __init__(self, tracer: "Tracer | None") -> None:
        self._tracer = tracer
        self._events: dict[str, list[Event]] = defaultdict(list)

    def listener(self, video: str) -> Listener:
        """Notes the events of one video."""
        return ignore if self._tracer is None else self._events[video].append

    def end(self, video: str, *, video_id: str, status: str, code: str | None) -> None:
        """Send the video's trace; nothing of a video that came to no work."""
        pieces = list(_pieces(self._events.pop(video, [])))
        if self._tracer is None or not pieces:
            return
        from opentelemetry.trace import Status, StatusCode, set_span_in_context  # noqa: PLC0415

        ended_s = max(ended for _, _, ended, _ in pieces)
        root = self._tracer.start_span(
            "video",
            start_time=_ns(min(started for _, started, _, _ in pieces)),
            attributes={"vidray.video": video_id, "vidray.status": status},
        )
        if code is not None:
            root.set_attribute("vidray.code", code)
            root.set_status(Status(StatusCode.ERROR, code))
        inside = set_span_in_context(root)
        for name, started, ended, attributes in pieces:
            span = self._tracer.start_span(
                name, context=inside, start_time=_ns(started), attributes=attributes
            )
            span.end(_ns(ended))
        root.end(_ns(ended_s))

    def end_row(self, video: str, record: Record) -> None:
        """The same where the video's row is made."""
        self.end(video, video_id=record.video_id, status=record.status, code=record.code)


@contextmanager
def video_spans(is_wanted: bool) -> Iterator[VideoSpans]:
    """What sends traces while entered, all of them before it is left. ConfigError without the
    extra that it needs.
    """
    if not is_wanted:
        yield VideoSpans(None)
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("--otel needs pip install 'vidray[otel]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "vidray"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=MAX_QUEUED))
    try:
        yield VideoSpans(provider.get_tracer("vidray"))
    finally:
        provider.shutdown()


def _pieces(events: list[Event]) -> Iterator[Piece]:
    """In the order of the events; an answer's words are one piece."""
    answers: dict[Any, list[Span]] = defaultdict(list)
    for event in events:
        if isinstance(event, Planned):
            yield _piece("plan", event.span, tokens=event.plan.num_tokens)
        elif isinstance(event, Moved):
            place = {"window": event.window_index, "chunk": event.chunk_index}
            yield _piece(event.stage, event.span, **place)
        elif isinstance(event, Words):
            answers[event.request].append(event.span)
    for request, spans in answers.items():
        first, last = spans[0], spans[-1]
        facts = {"vidray.kind": request.kind, "vidray.process": last.process.name}
        if num_tokens := sum(span.num_tokens for span in spans):
            facts["vidray.tokens"] = num_tokens
        yield "answer", first.started_unix_s, last.ended_unix_s, facts


def _piece(name: str, span: Span, **facts: int) -> Piece:
    amounts = {"frames": span.num_frames, "tokens": span.num_tokens, "bytes": span.num_bytes}
    known = {key: value for key, value in amounts.items() if value} | facts
    attributes: dict[str, Any] = {f"vidray.{key}": value for key, value in known.items()}
    attributes["vidray.process"] = span.process.name
    return name, span.started_unix_s, span.ended_unix_s, attributes


def _ns(unix_s: float) -> int:
    return round(unix_s * 1e9)
