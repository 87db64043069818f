"""What an operator sets of the endpoint; each is a flag of `vidray serve`."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from pipeline.settings import Settings
from pipeline.tasks.options import Flag, separated

MIB = 1 << 20
GIB = 1 << 30
Listed = Annotated[tuple[str, ...], BeforeValidator(separated), Flag("A,B,...", once=True)]


class EndpointOptions(Settings):
    """Where the endpoint listens, and what one request may cost."""

    host: str = Field(default="127.0.0.1", description="Address to listen at.")
    port: int = Field(default=8000, ge=0, le=65_535, description="0 is any free one.")
    keys: Path | None = Field(
        default=None,
        description="File of `name:sha256` lines of the keys that may ask; VIDRAY_KEYS likewise.",
    )
    anyone: bool = Field(default=False, description="Whoever reaches it may ask, without a key.")
    allow_hosts: Listed = Field(
        default=(), description="Hosts whose https: videos may be fetched; none if not given."
    )
    allow_s3: Listed = Field(
        default=(),
        description="Buckets, or bucket/prefix, whose s3: videos may be fetched, with the "
        "endpoint and keys of AWS_*; none if not given.",
    )
    data: Path | None = Field(
        default=None, description="Folder for uploads; one that goes at the end if not given."
    )
    schedules: Path | None = Field(
        default=None, description="Schedules of vidray ingest that may be told of new videos."
    )
    max_upload_bytes: int = Field(default=2 * GIB, ge=1, description="Of one uploaded file.")
    max_body_bytes: int = Field(
        default=64 * MIB, ge=1, description="Of any other body, a video as data: included."
    )
    keep_uploads_s: float = Field(default=86_400.0, gt=0, description="Until an upload is deleted.")
    max_streams: int = Field(default=64, ge=1, description="Videos open at once.")
    max_fps: float = Field(default=30.0, gt=0, description="Highest fps a request may ask for.")
    max_frames: int = Field(
        default=768, ge=2, description="Most frames a request may ask for, and gets."
    )
    max_answer_tokens: int = Field(
        default=1_024, ge=1, le=32_768, description="Longest answer a request may ask for."
    )
    key_answers: int = Field(
        default=32, ge=1, description="Answers at a time of one key, and uploads."
    )
    key_requests: int = Field(default=600, ge=1, description="Requests a minute with one key.")
    deadline_s: float = Field(default=600.0, gt=0, description="What one answer may take.")
    otel: bool = Field(
        default=False,
        description="Send a trace of each watched video and its answers to the OpenTelemetry "
        "collector that OTEL_EXPORTER_OTLP_ENDPOINT names; needs vidray[otel].",
    )
    body_s: float = Field(
        default=20.0, gt=0, description="In which 16 KiB of a body come, or its end."
    )
