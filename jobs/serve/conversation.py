"""A chat as one video and what was said about it: the video stands first, then turns of text."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.serve.bodies import (
    AssistantMessage,
    ChatBody,
    FilePart,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    VideoPart,
    VideoSampling,
)
from jobs.serve.refusals import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a chat is about. url: data:, or where it lies. name: a label."""

    url: str = ""
    file_id: str | None = None
    name: str = ""
    sampling: VideoSampling = VideoSampling()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """turns: earlier questions with their answers. An empty question asks for a description."""

    shown: Shown
    turns: tuple[tuple[str, str], ...]
    question: str


def conversation_of(body: ChatBody) -> Conversation:
    """Refusal where it is none about one video, or does not end with a question."""
    shown = [part for message in body.messages for part in _shown(message)]
    if not shown:
        raise Refusal(422, "video_required", "a chat here is about a video; none is in messages")
    if len(shown) > 1:
        raise Refusal(422, "unsupported", f"one video a chat, got {len(shown)}", "messages")
    texts = _texts(body.messages)
    return Conversation(
        shown=_sampled(shown[0], body),
        turns=tuple(zip(texts[:-1:2], texts[1::2], strict=True)),
        question=texts[-1],
    )


def _texts(messages: Sequence[Message]) -> list[str]:
    """Question, answer, question: what the same side says in a row is one text, by lines.

    The system's words belong to whoever speaks next.
    """
    sides: list[tuple[bool, list[str]]] = []
    for message in messages:
        is_answer = isinstance(message, AssistantMessage)
        if not sides or sides[-1][0] != is_answer:
            sides.append((is_answer, []))
        sides[-1][1].append(_text(message))
    if sides[0][0] or sides[-1][0]:
        raise Refusal(422, "invalid", "a chat begins and ends with the user", "messages")
    return ["\n".join(filter(None, texts)) for _, texts in sides]


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))


def _shown(message: Message) -> list[VideoPart | ImagePart | FilePart]:
    if isinstance(message, SystemMessage | AssistantMessage) or isinstance(message.content, str):
        return []
    return [part for part in message.content if not isinstance(part, TextPart)]


def _sampled(part: VideoPart | ImagePart | FilePart, body: ChatBody) -> Shown:
    """One canonical form of the two ways to say how it is sampled."""
    kwargs = body.media_io_kwargs.video.sampling if body.media_io_kwargs else VideoSampling()
    if isinstance(part, FilePart):
        file = part.file
        return Shown(
            url=file.file_data or "",
            file_id=file.file_id,
            name=file.filename or "",
            sampling=kwargs,
        )
    if isinstance(part, ImagePart):
        return Shown(url=part.image_url.url, sampling=kwargs)
    own = part.video_url.model_dump(exclude={"url"}, exclude_none=True)
    others = kwargs.model_dump(exclude_none=True)
    for name in own.keys() & others.keys():
        if own[name] != others[name]:
            message = (
                f"{name} is {own[name]:g} in video_url and {others[name]:g} in media_io_kwargs"
            )
            raise Refusal(422, "invalid", message, f"media_io_kwargs.video.{name}")
    return Shown(url=part.video_url.url, sampling=VideoSampling(**others | own))
