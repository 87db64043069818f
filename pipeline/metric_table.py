"""Every number that vidray exports: its name, its unit, and what it means. Nothing else is counted.

docs/metrics.md, the Grafana board, `vidray top` and the endpoint's operator view are made of this
table. Who tells: `actor` (each actor, through Ray's exporter, which puts ray_ before the name),
`job` (`analyze` and `batch run` with --metrics), `endpoint` (GET /metrics of `vidray serve`),
`ingest` (`ingest run` with --metrics, of its schedules' journals: of ticks that others ran, too).
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import Blame, FailureCode
from pipeline.store.watched import OUTCOMES, VERBS

Kind = Literal["counter", "gauge", "histogram"]
Teller = Literal["actor", "job", "endpoint", "ingest"]
ANYBODY: tuple[Teller, ...] = ("actor", "job", "endpoint")
WATCHERS: tuple[Teller, ...] = ("job", "endpoint")
STAGES = ("read", "encode", "prefill", "generate")
TICK_STATES = ("due", "missed", "begun", "late", "done", "skipped")
FOUND_KINDS = ("new", "changed")
WAITED_FOR = ("read", "encode", "prefill")
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)


@dataclass(frozen=True, slots=True)
class Label:
    """What tells the series of a metric apart. values: where they are known, they begin at 0."""

    name: str
    values: tuple[str, ...] = ()


STAGE = Label("stage", STAGES)
CODE = Label("code", tuple(FailureCode))
PLACE = Label("place")
SCHEDULE = Label("schedule")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """name: without what Prometheus adds to it. unit: of a value; of a rate it is unit/s."""

    name: str
    kind: Kind
    unit: str
    text: str
    told_by: tuple[Teller, ...]
    labels: tuple[Label, ...] = ()

    @property
    def exported(self) -> str:
        """As it stands on a page: that of an actor has ray_ before it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


_TABLE = (
    Metric(
        name="vidray_chunks",
        kind="counter",
        unit="chunks",
        text="Chunks that a stage is through with.",
        told_by=ANYBODY,
        labels=(STAGE,),
    ),
    Metric(
        name="vidray_frames",
        kind="counter",
        unit="frames",
        text="Frames that were read.",
        told_by=ANYBODY,
        labels=(Label("stage", ("read",)),),
    ),
    Metric(
        name="vidray_tokens",
        kind="counter",
        unit="tokens",
        text="Tokens encoded, prefilled, generated; a job counts those of an answer at its end.",
        told_by=ANYBODY,
        labels=(Label("stage", ("encode", "prefill", "generate")),),
    ),
    Metric(
        name="vidray_bytes",
        kind="counter",
        unit="bytes",
        text="Bytes handed on: frames by the reader, token chunks by the encoder.",
        told_by=ANYBODY,
        labels=(Label("stage", ("read", "encode")),),
    ),
    Metric(
        name="vidray_busy_seconds",
        kind="counter",
        unit="s",
        text="Seconds at work, summed over processes; an actor's step of the decoder counts for "
        "both kinds of work in it, and only actors know of generate.",
        told_by=ANYBODY,
        labels=(STAGE,),
    ),
    Metric(
        name="vidray_waiting",
        kind="gauge",
        unit="pieces of work",
        text="In the queue of an actor.",
        told_by=("actor",),
        labels=(STAGE,),
    ),
    Metric(
        name="vidray_queue",
        kind="gauge",
        unit="temporal patches",
        text="Planned and not read, read and not encoded, encoded and not prefilled.",
        told_by=WATCHERS,
        labels=(Label("stage", WAITED_FOR),),
    ),
    Metric(
        name="vidray_on_the_way_bytes",
        kind="gauge",
        unit="bytes",
        text="Of frames and token chunks between reader and decoder; over Ray in its object store.",
        told_by=WATCHERS,
    ),
    Metric(
        name="vidray_kv_share",
        kind="gauge",
        unit="share",
        text="Of a decoder's token budget, what open streams hold; jobs and endpoints know of it "
        "what its latest prefill said.",
        told_by=ANYBODY,
        labels=(Label("process"),),
    ),
    Metric(
        name="vidray_kv_tokens",
        kind="gauge",
        unit="tokens",
        text="What open streams hold in a decoder.",
        told_by=("actor",),
        labels=(Label("process"),),
    ),
    Metric(
        name="vidray_running",
        kind="gauge",
        unit="at work",
        text="Videos of a job, or answers of an endpoint, that are being worked on.",
        told_by=WATCHERS,
    ),
    Metric(
        name="vidray_failures",
        kind="counter",
        unit="failures",
        text="Videos of a job, or answers of an endpoint, that failed, by code.",
        told_by=WATCHERS,
        labels=(CODE,),
    ),
    Metric(
        name="vidray_first_word_seconds",
        kind="histogram",
        unit="s",
        text="To the first word: from a question, or in a job from the start of a video.",
        told_by=WATCHERS,
    ),
    Metric(
        name="vidray_disk_free_bytes",
        kind="gauge",
        unit="bytes",
        text="Free where it writes: copies, output, uploads, object_store (shared memory).",
        told_by=WATCHERS,
        labels=(PLACE,),
    ),
    Metric(
        name="vidray_disk_size_bytes",
        kind="gauge",
        unit="bytes",
        text="Size of the same.",
        told_by=WATCHERS,
        labels=(PLACE,),
    ),
    Metric(
        name="vidray_videos",
        kind="counter",
        unit="videos",
        text="Rows made, by the status in them.",
        told_by=("job",),
        labels=(Label("status", ("ok", "failed")),),
    ),
    Metric(
        name="vidray_result_failures",
        kind="counter",
        unit="failures",
        text="Captions, answers and boxes that failed in good rows, by code.",
        told_by=("job",),
        labels=(CODE,),
    ),
    Metric(
        name="vidray_video_seconds",
        kind="counter",
        unit="s",
        text="Seconds of video that the rows are about.",
        told_by=("job",),
    ),
    Metric(
        name="vidray_planned_videos",
        kind="gauge",
        unit="videos",
        text="Of the job.",
        told_by=("job",),
    ),
    Metric(
        name="vidray_done_videos",
        kind="gauge",
        unit="videos",
        text="Of the job, those with a row, of earlier runs and other drivers too.",
        told_by=("job",),
    ),
    Metric(
        name="vidray_parts",
        kind="counter",
        unit="parts",
        text="Parts committed.",
        told_by=("job",),
    ),
    Metric(
        name="vidray_breaker_open",
        kind="gauge",
        unit="open",
        text="1 while the store or the fleet fails everybody and no other video is begun.",
        told_by=("job",),
        labels=(Label("blame", (Blame.STORE, Blame.FLEET)),),
    ),
    Metric(
        name="vidray_store_calls",
        kind="counter",
        unit="calls",
        text="Calls on the output and on stores that videos are copied from, after the store's own "
        "second tries; refused: the object is at fault, not the store.",
        told_by=("job",),
        labels=(Label("verb", VERBS), Label("outcome", OUTCOMES)),
    ),
    Metric(
        name="vidray_store_seconds",
        kind="counter",
        unit="s",
        text="Seconds that they took, together.",
        told_by=("job",),
        labels=(Label("verb", VERBS),),
    ),
    Metric(
        name="vidray_store_bytes",
        kind="counter",
        unit="bytes",
        text="Bytes that they moved.",
        told_by=("job",),
        labels=(Label("verb", ("get", "put")),),
    ),
    Metric(
        name="vidray_requests",
        kind="counter",
        unit="requests",
        text="HTTP requests.",
        told_by=("endpoint",),
        labels=(Label("method"), Label("route"), Label("status")),
    ),
    Metric(
        name="vidray_answers",
        kind="counter",
        unit="answers",
        text="Answers by how they ended, or that nobody listened to for now.",
        told_by=("endpoint",),
        labels=(Label("status", ("done", "paused", "failed")),),
    ),
    Metric(
        name="vidray_answer_seconds",
        kind="histogram",
        unit="s",
        text="Whole answers.",
        told_by=("endpoint",),
    ),
    Metric(
        name="vidray_open_streams",
        kind="gauge",
        unit="videos",
        text="Videos open.",
        told_by=("endpoint",),
    ),
    Metric(
        name="vidray_ticks",
        kind="counter",
        unit="ticks",
        text="Of the calendar: due; missed, nobody was there for it. Of all: begun; late, by five "
        "minutes or more; done, its videos are taken; skipped, as other batches "
        "were under way.",
        told_by=("ingest",),
        labels=(SCHEDULE, Label("state", TICK_STATES)),
    ),
    Metric(
        name="vidray_found_videos",
        kind="counter",
        unit="videos",
        text="That ticks took: new ones, and changed ones again.",
        told_by=("ingest",),
        labels=(SCHEDULE, Label("kind", FOUND_KINDS)),
    ),
    Metric(
        name="vidray_waiting_ticks",
        kind="gauge",
        unit="ticks",
        text="Due or begun, and neither done nor skipped; of those that are due one is counted.",
        told_by=("ingest",),
        labels=(SCHEDULE,),
    ),
    Metric(
        name="vidray_tick_overdue_seconds",
        kind="gauge",
        unit="s",
        text="Since the time of the oldest of the calendar's among them; 0 where there is none.",
        told_by=("ingest",),
        labels=(SCHEDULE,),
    ),
    Metric(
        name="vidray_batches_under_way",
        kind="gauge",
        unit="batches",
        text="That ticks took videos for, and that are not finished.",
        told_by=("ingest",),
        labels=(SCHEDULE,),
    ),
)

METRICS = {metric.name: metric for metric in _TABLE}


def told_by(teller: Teller) -> tuple[Metric, ...]:
    """What one of them tells."""
    return tuple(metric for metric in _TABLE if teller in metric.told_by)
