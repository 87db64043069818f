"""Bodies of requests: typed, every unknown key refused by name, before anything is looked at."""

import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import from_json

from jobs.serve.refusals import Refusal, invalid
from pipeline.settings import Settings

MAX_MESSAGES = 256
Body = TypeVar("Body", bound=Settings)
Word = Annotated[str, Field(min_length=1)]

IGNORED = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier"})
# Keys that clients send with what means nothing; with anything else they ask for what is not here.
MEANINGLESS: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}


def parse(kind: type[Body], raw: bytes) -> Body:
    """The body; Refusal where it is no JSON (400) or not what the route takes (422)."""
    values = require_object(raw)
    if issubclass(kind, ChatBody):
        values = _without_meaningless(values)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)) from None


def require_object(raw: bytes) -> dict[str, Any]:
    """Any JSON object; Refusal likewise, and where a key stands twice: which was meant?"""
    try:
        values = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise Refusal(400, "bad_json", "the body is not valid JSON") from None
    json.loads(raw, object_pairs_hook=_require_unique)
    if not isinstance(values, dict):
        raise Refusal(422, "invalid", "the body must be a JSON object")
    return values


def _require_unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            told = f"the key {name[:64]!r} stands twice in one object"
            raise Refusal(400, "bad_json", told, name[:64])
        seen.add(name)


def _without_meaningless(values: dict[str, Any]) -> dict[str, Any]:
    for name, harmless in MEANINGLESS.items():
        value = values.get(name)
        if value is not None and value not in harmless:
            raise Refusal(422, "unsupported", f"{name} is not supported here", name)
    return {
        name: value
        for name, value in values.items()
        if name not in IGNORED and name not in MEANINGLESS
    }


class VideoSampling(Settings):
    """Which frames of a video are shown to the model."""

    fps: float | None = Field(default=None, gt=0)
    max_frames: int | None = Field(default=None, ge=2)
    start_s: float | None = Field(default=None, ge=0)
    end_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start_s is not None and self.end_s is not None and self.start_s >= self.end_s:
            raise ValueError("start_s must be before end_s")
        return self


class MediaVideo(Settings):
    """The same, as vLLM's clients write it."""

    fps: float | None = Field(default=None, gt=0)
    num_frames: int | None = Field(default=None, ge=2)
    max_frames: int | None = Field(default=None, ge=2)
    start_s: float | None = Field(default=None, ge=0)
    end_s: float | None = Field(default=None, gt=0)

    @property
    def sampling(self) -> VideoSampling:
        values = self.model_dump(exclude_none=True)
        num_frames = values.pop("num_frames", None)
        if num_frames is not None and values.setdefault("max_frames", num_frames) != num_frames:
            raise Refusal(422, "invalid", "num_frames and max_frames differ", "media_io_kwargs")
        return VideoSampling(**values)


class MediaKwargs(Settings):
    video: MediaVideo = MediaVideo()


class VideoUrl(VideoSampling):
    url: str


class ImageUrl(Settings):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class FileData(Settings):
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file_id is None) == (self.file_data is None):
            raise ValueError("a file is given by file_id or by file_data")
        return self


def _as_url(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class TextPart(Settings):
    type: Literal["text"]
    text: str


class VideoPart(Settings):
    type: Literal["video_url"]
    video_url: Annotated[VideoUrl, BeforeValidator(_as_url)]


class ImagePart(Settings):
    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_as_url)]


class FilePart(Settings):
    type: Literal["file"]
    file: FileData


Part = Annotated[TextPart | VideoPart | ImagePart | FilePart, Field(discriminator="type")]


class SystemMessage(Settings):
    role: Literal["system", "developer"]
    content: str | tuple[TextPart, ...]
    name: str | None = None


class UserMessage(Settings):
    role: Literal["user"]
    content: str | tuple[Part, ...]
    name: str | None = None


class AssistantMessage(Settings, extra="ignore"):
    """As a client got it: what else it holds says nothing here."""

    role: Literal["assistant"]
    content: str | tuple[TextPart, ...]


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class NamedSchema(Settings):
    name: str = ""
    description: str | None = None
    strict: bool | None = None
    json_schema: dict[str, Any] = Field(alias="schema", default_factory=dict)


class ResponseFormat(Settings):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema comes with the type json_schema, and only with it")
        return self


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Manner(Settings):
    """How an answer is written."""

    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    repetition_penalty: float | None = Field(default=None, ge=0.1, le=10)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stop: Annotated[tuple[Word, ...] | None, BeforeValidator(_several)] = Field(
        default=None, max_length=4
    )
    response_format: ResponseFormat | None = None
    choices: tuple[str, ...] | None = None

    @property
    def alone(self) -> "Manner":
        """Without the rest of a body, which may be a video."""
        values = {name: getattr(self, name) for name in Manner.model_fields}
        return Manner.model_construct(**values)


class StreamSettings(Settings):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class VidrayWishes(Settings):
    """What stock clients do not know. progress: chunks that say how far the video is."""

    progress: bool = False


class ChatBody(Manner):
    model: str
    messages: tuple[Message, ...] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = False
    stream_options: StreamSettings | None = None
    media_io_kwargs: MediaKwargs | None = None
    vidray: VidrayWishes = VidrayWishes()


class SourceBody(Settings):
    """A video: an upload, or a url as in a chat."""

    file_id: str | None = None
    url: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file_id is None) == (self.url is None):
            raise ValueError("a source is given by file_id or by url")
        return self


class StreamBody(Settings):
    source: SourceBody
    plan: VideoSampling = VideoSampling()


class AskBody(Manner):
    question: str
    after: str | None = None
    stream: bool = False


class GroundBody(Settings):
    query: str
    times_s: tuple[Annotated[float, Field(ge=0)], ...] = Field(default=(), max_length=64)
