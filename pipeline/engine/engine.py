"""A decoder replica: many streams share its steps, its KV budget and its ranks.

One loop alone touches the rank, so nothing needs a lock: callers leave their wishes and wait.
Prefill of some videos and words of others run in the same steps (continuous batching). No Ray here;
`broadcast` has the other ranks run the same commands.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

from pipeline.engine.answer import Question
from pipeline.engine.commands import (
    BeginTurn,
    CloseStream,
    Command,
    Commands,
    Control,
    EndTurn,
    OpenStream,
    Report,
    Step,
)
from pipeline.engine.layout import PromptWindow
from pipeline.engine.rank import Rank
from pipeline.engine.scheduler import Schedule
from pipeline.engine.stream import Piece
from pipeline.engine.waiters import TurnReader, Waiters, Wish
from pipeline.errors import BadInput, Transient
from pipeline.stint import Place, Stint
from pipeline.types import TokenChunk


class Replica:
    """Serves streams on one rank (and, through `broadcast`, on its peers).

    observe: is told of every step and how long it took, as a stint of `place`. gap_s: of Schedule.
    step_s: a step that takes longer has failed. on_failure: is told when a step failed, after which
    nothing is served.
    """

    def __init__(
        self,
        rank: Rank,
        *,
        broadcast: Callable[[Commands], Awaitable[None]],
        place: Place | None = None,
        observe: Callable[[Step, Stint], None] = lambda step, stint: None,
        gap_s: float = 0.0,
        step_s: float | None = None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._rank = rank
        self._broadcast = broadcast
        self._place = place or Place.here("decoder")
        self._observe = observe
        self._step_s = step_s
        self._on_failure = on_failure
        self._schedule = Schedule(gap_s)
        self._waiters = Waiters()
        self._numbers = count()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rank")
        self._failure: BaseException | None = None
        self._loop: asyncio.Task[None] | None = None  # starts with the first call

    @property
    def num_waiting(self) -> int:
        """Chunks to prefill, and streams and turns without room yet."""
        return self._schedule.num_chunks + len(self._waiters.wishes)

    async def open(
        self, stream_id: str, media: Sequence[PromptWindow], *, urgency: int = 0
    ) -> None:
        """Reserve a stream's tokens, waiting for room; smaller urgency numbers go first.

        BadInput(TOKEN_BUDGET) if it could never fit.
        """
        await self._wish(OpenStream(stream_id, tuple(media)), urgency=urgency)

    async def prefill(self, stream_id: str, chunk: TokenChunk, *, left: int = 0) -> Stint:
        """Return once the chunk is in the cache: the time of the step that took it.

        left: chunks of the window after it. StreamError if it is not the stream's next one.
        """
        self._require_alive()
        done: asyncio.Future[Stint] = asyncio.get_running_loop().create_future()
        self._waiters.prefills.setdefault(stream_id, asyncio.Queue()).put_nowait(done)
        self._schedule.add_chunk(stream_id, chunk, left=left)
        self._wake.set()
        return await done

    async def ask(
        self, stream_id: str, questions: Sequence[Question]
    ) -> AsyncGenerator[Piece, None]:
        """Answer all questions at once, yielding text of any of them as it becomes certain."""
        pieces: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
        turns = {f"{stream_id}#{next(self._numbers)}": i for i in range(len(questions))}
        is_alone = len(questions) == 1
        begins = [
            asyncio.create_task(
                self._begin(BeginTurn(turn_id, stream_id, questions[i], is_alone), i, pieces)
            )
            for turn_id, i in turns.items()
        ]
        try:
            remaining = len(questions)
            while remaining:
                piece = await pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                remaining -= piece.result is not None
                yield piece
        finally:
            for task in begins:
                task.cancel()
            await self._end_turns(turns)

    async def close(self, stream_id: str) -> None:
        """Free everything the stream holds, whatever state it is in; who waits gets Transient."""
        self._schedule.drop_stream(stream_id)
        gone = self._waiters.turns_of(stream_id)
        self._schedule.turns = [turn for turn in self._schedule.turns if turn not in gone]
        self._waiters.give_up_stream(stream_id, Transient("the stream was closed"))
        await self._wish(CloseStream(stream_id), urgency=-1)

    async def release(self, owner: str) -> None:
        """Close every stream whose id starts with "owner/": their host is gone."""
        # Those that wait go first, or closing the others would give them room.
        stream_ids = [*self._waiters.stream_ids, *self._rank.stream_ids]
        for stream_id in dict.fromkeys(stream_ids):
            if stream_id.startswith(f"{owner}/"):
                await self.close(stream_id)

    def stop(self) -> None:
        """End the loop; whoever still waits gets Transient."""
        if self._loop is not None:
            self._loop.cancel()
        self._fail(Transient("the replica was stopped"))
        self._thread.shutdown(wait=False)

    async def _begin(
        self, command: BeginTurn, index: int, pieces: "asyncio.Queue[Piece | BaseException]"
    ) -> None:
        self._waiters.turns[command.turn_id] = TurnReader(index, pieces)
        try:
            await self._wish(command, urgency=0)
        except BadInput as error:
            self._waiters.turns.pop(command.turn_id, None)
            pieces.put_nowait(Piece(index, "", error))
        except Exception as error:  # noqa: BLE001 - handed to whoever reads the pieces
            self._waiters.turns.pop(command.turn_id, None)
            pieces.put_nowait(error)

    async def _end_turns(self, turn_ids: Sequence[str] | dict[str, int]) -> None:
        """End what was given up early; finished turns ended by themselves."""
        running = [turn for turn in turn_ids if turn in self._schedule.turns]
        self._forget(turn_ids)
        for turn in running:
            await self._wish(EndTurn(turn), urgency=-1)

    def _forget(self, turn_ids: Sequence[str] | dict[str, int]) -> None:
        self._schedule.turns = [turn for turn in self._schedule.turns if turn not in turn_ids]
        for turn in turn_ids:
            self._waiters.turns.pop(turn, None)

    async def _wish(self, command: Control, *, urgency: int) -> None:
        self._require_alive()
        done = asyncio.get_running_loop().create_future()
        self._waiters.wishes.append(Wish(command, urgency, next(self._numbers), done))
        self._wake.set()
        await done

    async def _serve(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._run_once()
        except Exception as error:  # noqa: BLE001 - a rank that failed is unusable; all callers hear it
            self._fail(Transient(f"the replica failed: {error!r}"))
            self._on_failure(error)

    async def _run_once(self) -> None:
        commands: list[Command] = [*self._grant()]
        work = self._next_work()
        if work.prefills or work.turns:
            commands.append(work)
        if not commands:
            return
        # One batch of commands at a time: their order is what keeps ranks equal.
        async with asyncio.timeout(self._step_s):
            await asyncio.gather(self._broadcast(commands), self._run(work))
        self._wake.set()  # there may be more: wishes that now have room, turns that go on

    def _next_work(self) -> Step:
        now_s, prefills = time.monotonic(), self._schedule.next_prefills()
        num_streams = len(self._rank.stream_ids)
        wait_s = self._schedule.words_wait_s(num_streams=num_streams, now_s=now_s)
        if wait_s > 0 and not prefills:
            asyncio.get_running_loop().call_later(wait_s, self._wake.set)
            return Step((), ())
        return Step(prefills, self._schedule.next_turns(now_s=now_s))

    async def _run(self, work: Step) -> None:
        if not work.prefills and not work.turns:
            return
        loop, started_s = asyncio.get_running_loop(), time.monotonic()
        report = await loop.run_in_executor(self._thread, self._rank.run, [work])
        stint = self._place.stint("prefill", started_s, kv_share=self._rank.kv_share)
        self._deliver(work, report, stint)
        self._observe(work, stint)

    def _grant(self) -> list[Control]:
        """Carry out the wishes there is room for, urgent ones first; returns them for the peers.

        The first OpenStream without room stops the later ones, or large videos would starve.
        """
        granted: list[Control] = []
        has_room = True
        for wish in sorted(self._waiters.wishes, key=lambda wish: (wish.urgency, wish.number)):
            is_open = isinstance(wish.command, OpenStream)
            if wish.done.done():
                self._waiters.wishes.remove(wish)
                continue
            if is_open and not has_room:
                continue
            try:
                self._rank.control(wish.command)
            except Transient as error:
                if self._may_be_granted_later(wish.command):
                    has_room = has_room and not is_open
                    continue
                wish.done.set_exception(error)
            except Exception as error:  # noqa: BLE001 - it is the wisher's
                wish.done.set_exception(error)
            else:
                granted.append(wish.command)
                if isinstance(wish.command, BeginTurn):
                    self._schedule.begin_turn(wish.command.turn_id)
                wish.done.set_result(None)
            self._waiters.wishes.remove(wish)
        return granted

    def _may_be_granted_later(self, command: Control) -> bool:
        """Not a question to a stream that is closed, or that a restart has lost."""
        return not isinstance(command, BeginTurn) or command.stream_id in self._rank.stream_ids

    def _deliver(self, work: Step, report: Report, stint: Stint) -> None:
        refused = dict(report.refused)
        for stream_id, chunk in work.prefills:
            waiting = self._waiters.prefills.get(stream_id)
            if waiting is None or waiting.empty():
                continue
            done = waiting.get_nowait()
            if not done.cancelled():
                if error := refused.get(stream_id):
                    done.set_exception(error)
                else:
                    done.set_result(replace(stint, num_tokens=chunk.tokens.shape[0]))
        for progress in report.progress:
            turn = self._waiters.turns.get(progress.turn_id)
            if progress.result is not None:
                self._forget([progress.turn_id])
            if turn is not None and (progress.text or progress.result is not None):
                turn.pieces.put_nowait(Piece(turn.question_index, progress.text, progress.result))

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._waiters.give_up(error)

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._loop is None:
            self._loop = asyncio.create_task(self._serve())
