"""One error tree: whoever catches knows from the type alone whom to blame and whether to retry.

Every one of them travels between processes whole, whatever its constructor takes.
"""

from enum import StrEnum
from typing import Any


class Blame(StrEnum):
    """Whom a failure accuses, before anybody has looked at how others fare."""

    VIDEO = "video"  # intrinsic: what is in it, or what was asked of it
    STORE = "store"  # perhaps where its bytes are
    FLEET = "fleet"  # perhaps the processes that worked on it


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
    BEYOND_END = "beyond_end"
    DECODER_CRASH = "decoder_crash"
    DECODE_MEMORY = "decode_memory"
    DECODE_TIMEOUT = "decode_timeout"
    DECODER_PROTOCOL = "decoder_protocol"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    SOURCE_CHANGED = "source_changed"
    SOURCE_UNREADABLE = "source_unreadable"
    BAD_PROMPT = "bad_prompt"
    PROMPT_TOO_LONG = "prompt_too_long"
    TOKEN_BUDGET = "token_budget"  # noqa: S105
    NONFINITE_LOGITS = "nonfinite_logits"
    UNPARSEABLE_OUTPUT = "unparseable_output"
    WORKER_LOST = "worker_lost"

    @property
    def blame(self) -> Blame:
        """Only the video's own failures are committed without more ado: others may be innocent."""
        return _SURROUNDINGS.get(self, Blame.VIDEO)


_SURROUNDINGS = {
    FailureCode.NOT_FOUND: Blame.STORE,
    FailureCode.FORBIDDEN: Blame.STORE,
    FailureCode.SOURCE_UNREADABLE: Blame.STORE,
    FailureCode.DECODER_CRASH: Blame.FLEET,
    FailureCode.DECODE_MEMORY: Blame.FLEET,
    FailureCode.DECODE_TIMEOUT: Blame.FLEET,
    FailureCode.DECODER_PROTOCOL: Blame.FLEET,
    FailureCode.WORKER_LOST: Blame.FLEET,
}


class VidrayError(Exception):
    """Root of every error vidray raises on purpose; anything else is a bug."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own way calls the constructor with `args`, which is the message alone.
        return _remade, (type(self), self.args), self.__dict__


class BadInput(VidrayError):
    """The video's or the request's own fault: permanent, becomes a failure row with `code`.

    `detail` is one sentence for people: what was wrong, the value, the limit; no paths.
    sandbox: the measures of video/confinement.py that held the decoder, if one found it.
    operation: what a store was asked to do, in its own words, if it found it.
    """

    sandbox: tuple[str, ...] = ()
    operation: str = ""

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Transient(VidrayError):
    """A retry may succeed: a reset connection, a busy store, a worker that died."""


class CallLost(Transient):
    """A call did not arrive, or its answer did not; whoever was called may well live."""


class Outage(Transient):
    """Nobody gets through, or nobody is left to tell: the job stops, nothing innocent is lost.

    Run it again once what it names is mended. Exit 1.
    """


class StoreError(VidrayError):
    """A store that cannot serve this job: the job stops, nothing is lost, run it again. Exit 1."""


class StoreMissing(StoreError):
    """There is no such bucket."""


class StoreDenied(StoreError):
    """The store refuses the credentials or the permission."""


class ObjectRefused(StoreError):
    """The store answers a request for one object with a refusal that says nothing of itself."""


class SourceAway(StoreError):
    """A process does not see a file as whoever sent it there does: another node, another mount."""


class StoreFull(StoreError):
    """The store has no room left."""


class StoreCorrupt(StoreError):
    """What the store holds is not what was committed: a digest, a count or a format is wrong."""


class PlanCorrupt(StoreCorrupt):
    """It is the plan that is wrong: nothing that is there can say what it was."""


class Stopped(VidrayError):
    """Whoever runs the job asked it to stop before its last part; run it again to go on."""


class StreamError(VidrayError):
    """A chunk or a question that does not fit an open stream's state; the stream is as it was.

    Chunks mixed up between processes end here, before they could become words on the wrong video.
    """


class SessionClosed(VidrayError):
    """A question to a session that was closed: open the video in another."""

    def __init__(self, message: str = "this session was closed: open the video again") -> None:
        super().__init__(message)


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
