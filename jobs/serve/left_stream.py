"""An open video as it lies on the disk: what it was, what was asked, what was said so far.

Its log is all of it: an answer's `asked` holds how it was asked, its end what a follow-up needs.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.serve.bodies import Manner, VideoSampling
from jobs.serve.stream_log import LoggedEvent
from pipeline.reply import Reply, Usage
from pipeline.tasks.records import Answer

ENDS = ("answered", "failed")
StreamKey = tuple[str, str, VideoSampling]
BodyKey = tuple[str, str]  # owner, what tells a chat's body that is sent again


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntry:
    """What a stream is of. created_at: Unix seconds."""

    stream_id: str
    owner: str
    file_id: str
    sha256: str
    sampling: VideoSampling
    created_at: int

    @property
    def key(self) -> StreamKey:
        """Chats with the same one share the stream."""
        return self.owner, self.sha256, self.sampling

    @property
    def line(self) -> bytes:
        """The first of its file."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(values | {"sampling": self.sampling.model_dump()}).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> "StreamEntry":
        values = json.loads(line)
        return cls(**values | {"sampling": VideoSampling(**values["sampling"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEntry:
    """What was asked. turns: of the chat so far. linger_s: that it goes on for nobody. after: the
    answer that it follows up. body_id: what tells a chat's body that is sent again.
    """

    answer_id: str
    question: str
    manner: Manner
    turns: tuple[tuple[str, str], ...]
    linger_s: float
    created_at: int
    after: str | None = None
    body_id: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """As JSON; `of_fields` reads it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"manner": self.manner.model_dump(mode="json", by_alias=True)}

    @classmethod
    def of_fields(cls, values: dict[str, Any]) -> "AnswerEntry":
        turns = tuple((asked, said) for asked, said in values["turns"])
        return cls(**values | {"turns": turns, "manner": Manner(**values["manner"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAnswer:
    """An answer as far as it came. end: None of one that was being written, or is paused."""

    entry: AnswerEntry
    asked: LoggedEvent
    text: str
    end: LoggedEvent | None
    is_paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftStream:
    """What a desk has left of a stream."""

    entry: StreamEntry
    events: Sequence[LoggedEvent]

    @classmethod
    def read(cls, path: Path) -> "LeftStream | None":
        """None for what is none. A last line that is cut was never told to anybody."""
        try:
            head, *lines = path.read_bytes().split(b"\n")[:-1]
            events = [LoggedEvent.of_line(line) for line in lines]
            left = cls(entry=StreamEntry.of_line(head), events=events)
            return left if left.plan_hash and left.answers is not None else None
        except (ValueError, TypeError, LookupError, AttributeError, OSError):
            return None

    @property
    def answers(self) -> list[LeftAnswer]:
        """In the order in which they were asked."""
        asked = {event.answer: event for event in self.events if event.name == "asked"}
        texts: dict[str | None, list[str]] = {answer: [] for answer in asked}
        ends: dict[str | None, LoggedEvent] = {}
        paused: set[str | None] = set()
        for event in self.events:
            if event.name == "words" and event.answer in asked:
                texts[event.answer].append(event.data["text"])
            elif event.name == "paused":
                paused.add(event.answer)
            elif event.name == "resumed":
                paused.discard(event.answer)
            elif event.name in ENDS:
                ends[event.answer] = event
        return [
            LeftAnswer(
                entry=AnswerEntry.of_fields(json.loads(event.kept or "{}")),
                asked=event,
                text="".join(texts[answer]),
                end=ends.get(answer),
                is_paused=answer in paused and answer not in ends,
            )
            for answer, event in asked.items()
        ]

    @property
    def plan_hash(self) -> str:
        """Of what was to be seen."""
        return str(self.events[0].data["plan"]["hash"])

    @property
    def counters(self) -> dict[str, int]:
        """How often frames came through each stage."""
        for event in reversed(self.events):
            if event.name in ("decoded", "encoded", "prefilled"):
                counters: dict[str, int] = event.data["counters"]
                return counters
        return {}


def reply_fields(reply: Reply) -> dict[str, Any]:
    """As JSON; `reply_of` reads it."""
    return {
        "answer": asdict(reply.answer) | {"code": None},  # a failed one is no reply
        "conversation": [[window, *ids] for window, ids in reply.conversation.items()],
        "usage": asdict(reply.usage),
    }


def reply_of(values: dict[str, Any]) -> Reply:
    conversation = {window: tuple(ids) for window, *ids in values["conversation"]}
    return Reply(Answer(**values["answer"]), conversation, Usage(**values["usage"]))
