"""The engine: many streams share the steps, the KV budget and the ranks of one language model.

One loop alone touches the rank, so nothing needs a lock: callers leave what they want and wait;
what frees room is done though they be gone. If the loop is cancelled its step goes on in its
thread, and the next loop begins with the end of that: nothing touches the rank beside a step.
Prefill of some videos and words of others run in the same steps (continuous batching). The loop
runs while there is work. In this process or in an actor it is the same object; `broadcast` has the
other ranks, if there are any, run the same commands.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

from pipeline.engine.commands import (
    BeginGeneration,
    CloseStream,
    Command,
    Commands,
    Control,
    EndGeneration,
    OpenStream,
    Report,
    Step,
)
from pipeline.engine.deltas import Deltas
from pipeline.engine.ids import GenerationId, StreamId
from pipeline.engine.lane import Lane, WaitingChunk, Writer, settle
from pipeline.engine.layout import PromptWindow
from pipeline.engine.once import Once
from pipeline.engine.question import Question, TextDelta
from pipeline.engine.rank import Rank
from pipeline.engine.scheduler import Scheduler
from pipeline.errors import StreamError, Transient
from pipeline.leases import Claim
from pipeline.span import Process, Span
from pipeline.stages.order import YieldingLast
from pipeline.types import TokenChunk


async def nobody_else(commands: Commands) -> None:
    """The broadcast of an engine of one rank."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A control command that somebody waits for; kept while there is no room for it."""

    command: Control
    done: "asyncio.Future[None]"


class Engine:
    """Serves streams on one rank (and, through `broadcast`, on its peers).

    observe: is told of every step and how long it took, as a span of `process`.
    gap_s: of Scheduler. step_s: a step that takes longer has failed. on_failure: is told when a
    step failed, after which nothing is served. thread: one worker, where steps run; its own if not
    given.
    """

    def __init__(
        self,
        rank: Rank,
        *,
        broadcast: Callable[[Commands], Coroutine[Any, Any, None]] = nobody_else,
        process: Process | None = None,
        observe: Callable[[Step, Span], None] = lambda step, span: None,
        gap_s: float = 0.0,
        step_s: float | None = None,
        on_failure: Callable[[BaseException], None] = lambda error: None,
        thread: Executor | None = None,
    ) -> None:
        self.rank = rank
        self._broadcast = broadcast
        self._process = process or Process.here("decoder")
        self._observe = observe
        self._step_s = step_s
        self._on_failure = on_failure
        self._own_thread = None if thread else ThreadPoolExecutor(1, thread_name_prefix="rank")
        self._thread = thread or self._own_thread
        self._scheduler = Scheduler(gap_s)
        self._wanted: list[Wanted] = []
        self._order = YieldingLast()
        self._numbers = count()
        self._wake = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None  # the peers
        self._stepping: Once[tuple[Step, Report, Span]] | None = None
        self._failure: BaseException | None = None

    @property
    def num_waiting(self) -> int:
        """Chunks to prefill, and streams and questions without room yet."""
        return self._scheduler.num_chunks + len(self._wanted)

    @property
    def streams(self) -> tuple[StreamId, ...]:
        """Of those that are open or wait for room.

        Those that wait come first, or closing the others would give them room.
        """
        waiting = [each.command.stream for each in self._wanted]
        return tuple(dict.fromkeys((*waiting, *self.rank.streams)))

    async def open(self, stream: StreamId, media: Sequence[PromptWindow]) -> None:
        """Reserve a stream's tokens, waiting for room; one that yields lets others go first.

        media: in this order; without any, for prompts of text alone. BadInput(TOKEN_BUDGET) if it
        could never fit.
        """
        await self._want(OpenStream(stream, tuple(media)))

    async def prefill(
        self, stream: StreamId, tokens: TokenChunk, *, number: int, left: int = 0
    ) -> Span:
        """Return once the chunk is in the cache: the time of the step that took it.

        number: counts the stream's chunks from 0; one that arrives early waits for those before.
        left: chunks of the window after it. StreamError if it is not the stream's next one.
        """
        lane = self._lane(stream)
        if number < lane.num_taken or number in lane.chunks:
            raise StreamError(f"chunk {number} came twice")
        done: asyncio.Future[Span] = asyncio.get_running_loop().create_future()
        lane.chunks[number] = WaitingChunk(tokens, left, done)
        self._serve_on()
        return await done

    async def ask(
        self, stream: StreamId, questions: Sequence[Question], *, closes: bool = False
    ) -> AsyncGenerator[TextDelta, None]:
        """Answer all questions at once, yielding text of any of them as it becomes certain.

        Questions beyond the stream's room wait for others to finish; a failure is its question's.
        Giving up early frees what they hold. closes: the stream, after the last answer.
        """
        lane, deltas, is_alone = self._lane(stream), Deltas(len(questions)), len(questions) == 1
        names = [GenerationId(stream, next(self._numbers)) for _ in questions]
        for index, (name, question) in enumerate(zip(names, questions, strict=True)):
            lane.writers[name] = Writer(index, deltas)
            wanted = self._leave(BeginGeneration(name, question, is_alone))
            wanted.done.add_done_callback(partial(self._on_begun, lane, name))
        try:
            async for delta in deltas:
                yield delta
        finally:
            await self._end(lane, names)
        if closes:
            await self.close(stream)

    async def close(self, stream: StreamId) -> None:
        """Free everything the stream holds, whatever state it is in; who waits gets Transient.

        Done whatever becomes of the caller.
        """
        await self._leave_close(stream).done

    async def release(self, owner: str) -> None:
        """Close every stream of this owner: it is gone."""
        closed = [self._leave_close(each) for each in self.streams if each.owner == owner]
        await asyncio.gather(*(each.done for each in closed))

    async def is_short(self) -> bool:
        """Whether a stream waits for room."""
        return any(
            isinstance(each.command, OpenStream) and not each.done.done() for each in self._wanted
        )

    def renew(self, claim: Claim) -> None:
        """In one process no call is lost, and nobody falls silent."""

    async def ready(self) -> bool:
        """It always is."""
        return True

    def stop(self) -> None:
        """Serve nothing any more; whoever still waits gets Transient."""
        if self._serving is not None:
            self._serving.cancel()
        self._fail(Transient("the engine was stopped"))
        if self._own_thread is not None:
            self._own_thread.shutdown(wait=False)

    def _lane(self, stream: StreamId) -> Lane:
        if self._failure is not None:
            raise self._failure
        if stream not in self._scheduler.lanes:
            raise Transient("the decoder has no such stream: it was closed, or lost in a restart")
        return self._scheduler.lanes[stream]

    def _on_begun(self, lane: Lane, name: GenerationId, done: "asyncio.Future[None]") -> None:
        """A generation has room, or never will."""
        error = None if done.cancelled() else done.exception()
        if error is None:
            return
        if (writer := lane.writers.pop(name, None)) is not None:
            writer.deltas.fail(writer.question_index, error)

    async def _end(self, lane: Lane, names: Sequence[GenerationId]) -> None:
        """End what was given up early; finished generations ended by themselves."""
        given_up = [name for name in names if name in lane.writers]
        running = [name for name in given_up if lane.writers[name].is_running]
        for name in given_up:
            del lane.writers[name]
        self._wanted = [
            each
            for each in self._wanted
            if not isinstance(each.command, BeginGeneration)
            or each.command.generation not in given_up
        ]
        ended = [self._leave(EndGeneration(name)) for name in running]
        await asyncio.gather(*(each.done for each in ended))

    def _leave_close(self, stream: StreamId) -> Wanted:
        error = Transient("the stream was closed")
        lane = self._scheduler.lanes.pop(stream, None)
        if lane is not None:
            lane.give_up(error)
        for wanted in self._wanted:
            is_for_it = isinstance(wanted.command, OpenStream | BeginGeneration)
            if is_for_it and wanted.command.stream == stream:
                settle(wanted.done, error)
        return self._leave(CloseStream(stream))

    async def _want(self, command: Control) -> None:
        await self._leave(command).done

    def _leave(self, command: Control) -> Wanted:
        if self._failure is not None:
            raise self._failure
        wanted = Wanted(command, asyncio.get_running_loop().create_future())
        self._wanted.append(wanted)
        self._serve_on()
        return wanted

    def _serve_on(self) -> None:
        """See to it that the loop runs, in the event loop that is running now."""
        loop, serving = asyncio.get_running_loop(), self._serving
        if serving is None or serving.done() or serving.get_loop() is not loop:
            self._wake = asyncio.Event()
            self._serving = loop.create_task(self._serve())
            self._serving.add_done_callback(self._on_served)
        self._wake.set()

    def _on_served(self, served: "asyncio.Task[None]") -> None:
        """Who ends all tasks at once ends this loop too, and others want to close their streams."""
        if not served.cancelled() or served is not self._serving or self._failure is not None:
            return
        is_wanted = any(not each.done.done() for each in self._wanted)
        if is_wanted or any(lane.is_awaited for lane in self._scheduler.lanes.values()):
            self._serve_on()  # and not for nobody: it would outlive the event loop

    async def _serve(self) -> None:
        try:
            await self._finish()  # what a loop before this one was in the middle of
            while self._wanted or self._scheduler.has_work:
                self._wake.clear()
                if not await self._run_once():
                    await self._wake.wait()
        except Exception as error:  # noqa: BLE001 - a rank that failed is unusable; all callers hear it
            self._fail(Transient(f"the engine failed: {error!r}"))
            self._on_failure(error)

    async def _run_once(self) -> bool:
        """One batch of commands, since their order is what keeps ranks equal; False for none."""
        granted, now_s = self._grant(), time.monotonic()
        work = self._scheduler.next_step(now_s=now_s)
        if not work and not granted:
            if (wait_s := self._scheduler.words_wait_s(now_s=now_s)) > 0:
                asyncio.get_running_loop().call_later(wait_s, self._wake.set)
            return False
        commands: list[Command] = [*granted, work] if work else [*granted]
        self._telling = asyncio.create_task(self._broadcast(commands))
        self._stepping = Once(partial(self._step, work)) if work else None
        await self._finish()
        return True

    async def _finish(self) -> None:
        """See the commands under way to their end, if there are any."""
        if self._telling is None and self._stepping is None:
            return
        async with asyncio.timeout(self._step_s):
            await asyncio.gather(self._tell(), self._run())

    async def _tell(self) -> None:
        if self._telling is not None and not self._telling.cancelled():  # with its event loop
            await asyncio.shield(self._telling)
        self._telling = None

    async def _run(self) -> None:
        if self._stepping is None:
            return
        loop = asyncio.get_running_loop()
        work, report, span = await loop.run_in_executor(self._thread, self._stepping)
        self._stepping = None
        self._deliver(work, report, span)
        self._observe(work, span)

    def _step(self, work: Step) -> tuple[Step, Report, Span]:
        """In the thread, which others may share: waiting for them is not this step's time."""
        started_s = time.monotonic()
        report = self.rank.run([work])
        kv_share = self.rank.admission.kv_share
        return work, report, self._process.span("prefill", started_s, kv_share=kv_share)

    def _grant(self) -> list[Control]:
        """Carry out the commands there is room for, in turn; returns them for the peers.

        What frees room goes before what wants it. The first OpenStream without room stops the later
        ones, or large videos would starve.
        """
        granted: list[Control] = []
        kept: list[Wanted] = []
        has_room = True
        frees = [each for each in self._wanted if _frees_room(each.command)]
        wants = [each for each in self._wanted if not _frees_room(each.command)]
        in_turn = self._order.sorted(wants, yields=lambda each: each.command.stream.yields)
        for wanted in (*frees, *in_turn):
            is_open = isinstance(wanted.command, OpenStream)
            if wanted.done.done() and not _frees_room(wanted.command):  # nobody waits for it
                continue
            if is_open and not has_room:
                kept.append(wanted)
                continue
            try:
                self.rank.control(wanted.command)
            except Transient as error:
                if self._may_be_granted_later(wanted.command):
                    has_room = has_room and not is_open
                    kept.append(wanted)
                else:
                    settle(wanted.done, error)
            except Exception as error:  # noqa: BLE001 - it is that of whoever wanted it
                settle(wanted.done, error)
            else:
                granted.append(wanted.command)
                self._take_note(wanted.command)
                settle(wanted.done, None)
        waiting = set(kept)  # in the order of their coming: whose turn it is changes
        self._wanted = [each for each in self._wanted if each in waiting]
        return granted

    def _take_note(self, command: Control) -> None:
        """What was granted, in the lanes."""
        lanes = self._scheduler.lanes
        if isinstance(command, OpenStream):
            lanes[command.stream] = Lane(command.stream)
            is_passing = any(
                isinstance(each.command, OpenStream) and each.command.stream.yields
                for each in self._wanted
                if not each.done.done()
            )
            self._order.let_in(yields=command.stream.yields, is_passing=is_passing)
        elif isinstance(command, BeginGeneration):
            lanes[command.stream].writers[command.generation].is_running = True
            self._scheduler.hurry()

    def _may_be_granted_later(self, command: Control) -> bool:
        """Not a question to a stream that is closed, or that a restart has lost."""
        return isinstance(command, OpenStream) or command.stream in self._scheduler.lanes

    def _deliver(self, work: Step, report: Report, span: Span) -> None:
        refused, lanes = dict(report.refused), self._scheduler.lanes
        for stream, chunk in work.prefills:
            waiting, lane = None, lanes.get(stream)
            if lane is not None:
                waiting, lane.in_step = lane.in_step, None
            if waiting is not None:
                took = replace(span, num_tokens=chunk.tokens.shape[0])
                settle(waiting.done, refused.get(stream, took))
        for name, text, completion in report.written:
            writers = lanes[name.stream].writers if name.stream in lanes else {}
            writer = writers.pop(name, None) if completion else writers.get(name)
            if writer is not None and (text or completion):
                writer.deltas.put(TextDelta(writer.question_index, text, completion))

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        for wanted in self._wanted:
            settle(wanted.done, error)
        for lane in self._scheduler.lanes.values():
            lane.give_up(error)
        self._wanted, self._scheduler.lanes = [], {}


def _frees_room(command: Control) -> bool:
    return isinstance(command, CloseStream | EndGeneration)
