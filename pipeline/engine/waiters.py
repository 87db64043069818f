"""Who waits for a replica: for room, for a chunk to be in the cache, for words."""

import asyncio
from dataclasses import dataclass, field

from pipeline.engine.commands import CloseStream, Control, EndTurn, OpenStream
from pipeline.engine.stream import Piece
from pipeline.stint import Stint


@dataclass(slots=True, eq=False)
class Wish:
    """A control command somebody waits for; kept while there is no room for it."""

    command: Control
    urgency: int
    number: int
    done: "asyncio.Future[None]"


@dataclass(slots=True)
class TurnReader:
    """Where the words of a turn go."""

    question_index: int
    pieces: "asyncio.Queue[Piece | BaseException]"


@dataclass(slots=True)
class Waiters:
    """All of them; prefills by stream, oldest first, turns by their own id."""

    wishes: list[Wish] = field(default_factory=list)
    prefills: dict[str, "asyncio.Queue[asyncio.Future[Stint]]"] = field(default_factory=dict)
    turns: dict[str, TurnReader] = field(default_factory=dict)

    @property
    def stream_ids(self) -> list[str]:
        """Of streams that wait for room."""
        commands = (wish.command for wish in self.wishes)
        return [each.stream_id for each in commands if isinstance(each, OpenStream)]

    def turns_of(self, stream_id: str) -> list[str]:
        return [turn for turn in self.turns if turn.startswith(f"{stream_id}#")]

    def give_up_stream(self, stream_id: str, error: BaseException) -> None:
        """Tell whoever waits for this stream that it is closed."""
        for wish in self.wishes:
            command = wish.command
            if not isinstance(command, CloseStream | EndTurn) and command.stream_id == stream_id:
                _fail(wish.done, error)
        _fail_all(self.prefills.pop(stream_id, None), error)
        for turn in self.turns_of(stream_id):
            self.turns.pop(turn).pieces.put_nowait(error)

    def give_up(self, error: BaseException) -> None:
        """Tell everybody."""
        for wish in self.wishes:
            _fail(wish.done, error)
        for waiting in self.prefills.values():
            _fail_all(waiting, error)
        for turn in self.turns.values():
            turn.pieces.put_nowait(error)
        self.wishes, self.prefills, self.turns = [], {}, {}


def _fail(done: "asyncio.Future[None] | asyncio.Future[Stint]", error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


def _fail_all(waiting: "asyncio.Queue[asyncio.Future[Stint]] | None", error: BaseException) -> None:
    while waiting is not None and not waiting.empty():
        _fail(waiting.get_nowait(), error)
