"""One error tree: whoever catches knows from the type alone whom to blame and whether to retry.

Every one of them travels between processes whole, whatever its constructor takes.
"""

from enum import StrEnum
from typing import Any


class FailureCode(StrEnum):
    """Why a video has a failure row instead of a result. The only list of codes."""

    EMPTY_FILE = "empty_file"
    NOT_A_VIDEO = "not_a_video"
    UNSUPPORTED_CONTAINER = "unsupported_container"
    UNSUPPORTED_CODEC = "unsupported_codec"
    UNSUPPORTED_PIXEL_FORMAT = "unsupported_pixel_format"
    NO_VIDEO_STREAM = "no_video_stream"
    NOT_DECODABLE = "not_decodable"
    TRUNCATED = "truncated"
    ENCRYPTED = "encrypted"
    ASPECT_RATIO = "aspect_ratio"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_FRAMES = "too_many_frames"
    EMPTY_RANGE = "empty_range"
    DECODER_CRASH = "decoder_crash"
    DECODE_MEMORY = "decode_memory"
    DECODE_TIMEOUT = "decode_timeout"
    DECODER_PROTOCOL = "decoder_protocol"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    SOURCE_CHANGED = "source_changed"
    BAD_PROMPT = "bad_prompt"
    PROMPT_TOO_LONG = "prompt_too_long"
    TOKEN_BUDGET = "token_budget"  # noqa: S105
    NONFINITE_LOGITS = "nonfinite_logits"
    UNPARSEABLE_OUTPUT = "unparseable_output"
    WORKER_LOST = "worker_lost"


class VidrayError(Exception):
    """Root of every error vidray raises on purpose; anything else is a bug."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own way calls the constructor with `args`, which is the message alone.
        return _remade, (type(self), self.args), self.__dict__


class BadInput(VidrayError):
    """The video's or the request's own fault: permanent, becomes a failure row with `code`.

    `detail` is one sentence for people: what was wrong, the value, the limit; no paths.
    """

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Transient(VidrayError):
    """A retry may succeed: a reset connection, a busy store, a worker that died."""


class StoreError(VidrayError):
    """A store that cannot serve this job: the job stops, nothing is lost, run it again. Exit 1."""


class StoreDenied(StoreError):
    """The store refuses the credentials or the permission."""


class StoreFull(StoreError):
    """The store has no room left."""


class StoreCorrupt(StoreError):
    """What the store holds is not what was committed: a digest, a count or a format is wrong."""


class Stopped(VidrayError):
    """Whoever runs the job asked it to stop before its last part; run it again to go on."""


class StreamError(VidrayError):
    """A chunk or a question that does not fit an open stream's state; the stream is as it was.

    Chunks mixed up between processes end here, before they could become words on the wrong video.
    """


class ConfigError(VidrayError):
    """What the operator set is wrong; nothing was started. Exit code 2."""


class CheckpointError(ConfigError):
    """A model folder that cannot be trusted; names the file, the tensor if any, and the reason."""

    def __init__(self, file: str, reason: str, *, tensor: str | None = None) -> None:
        where = f"{file}: {tensor}" if tensor else file
        super().__init__(f"{where}: {reason}")
        self.file = file
        self.tensor = tensor
        self.reason = reason


def _remade(kind: type[VidrayError], arguments: tuple[Any, ...]) -> VidrayError:
    """An error that was raised elsewhere; its attributes are set after this, by pickle."""
    return kind.__new__(kind, *arguments)
