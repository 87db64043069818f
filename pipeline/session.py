"""An open video that can be asked as often as wanted, from the end of it or following up.

What a question needs to look at (the video's windows, the still at a time) is watched once and
stays in the decoder for the next question. Streams that were given up meanwhile, by `rest` or with
an actor that was lost, are watched again when they are asked: the plan is frozen, so the words are
the same.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

from pipeline.clock import Clock
from pipeline.config import Sampling
from pipeline.engine.question import Completion, Question
from pipeline.events import Event, Listener, Planned, Words, ignore
from pipeline.flow import AnyFlow, DecoderStream
from pipeline.patience import Deadline
from pipeline.reply import Ids, Ledger, Reply, Turns
from pipeline.span import Process
from pipeline.tasks.records import Box
from pipeline.tasks.requests import (
    Asked,
    Request,
    View,
    answers,
    boxes,
    combine,
    make_views,
    unshown,
)
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.types import MediaInfo, SamplingPlan, Size
from pipeline.video.source import Source
from pipeline.viewer import Sight, Viewer, ViewKey, key_of

MAX_STREAMS = 1  # of one session: a long video's windows are watched one after the other


class Session:
    """One video on one flow. Use as `async with`; then its media and plan are known.

    max_streams: windows kept in the decoder at one time, and as many stills; the one used longest
    ago gives way to another.
    on_waiting: is called again and again while no decoder has room. yields: to sessions that do
    not, wherever both wait. The listener of a question hears what happens for it.
    errors: BadInput for the video's own fault, Transient for a loss, and where the flow's patience
    is at its end; ask again after that. SessionClosed once it was closed.
    """

    def __init__(
        self,
        flow: AnyFlow,
        source: Source,
        *,
        max_streams: int = MAX_STREAMS,
        on_waiting: Callable[[], Awaitable[None]] | None = None,
        yields: bool = False,
    ) -> None:
        self.source = source
        self.clock = Clock()
        self._flow = flow
        self._deadline = Deadline(flow.patience)
        self._viewer = Viewer(
            flow,
            source,
            max_streams=max_streams,
            clock=self.clock,
            deadline=self._deadline,
            on_waiting=on_waiting,
            yields=yields,
        )
        self._process = Process.here("stream host")
        self._started_s = time.monotonic()
        self._num_asking = 0

    @property
    def is_open(self) -> bool:
        """Whether media and plan are known."""
        return self._viewer.is_open

    @property
    def media(self) -> MediaInfo:
        """What the header says of the video."""
        return self._viewer.facts.media

    @property
    def plan(self) -> SamplingPlan:
        """What of it the model looks at."""
        return self._viewer.facts.plan

    @property
    def etag(self) -> str:
        """Identity of the video's bytes."""
        return self._viewer.facts.etag

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return self._viewer.facts.size_bytes

    @property
    def sandbox(self) -> tuple[str, ...]:
        """The measures of confinement.py that held its decoder."""
        return self._viewer.facts.sandbox

    @property
    def num_tokens(self) -> int:
        """What its streams reserve in the decoders."""
        return self._viewer.num_tokens

    @property
    def sights(self) -> dict[ViewKey, Sight]:
        """How much of each view that was watched was there to be seen."""
        return self._viewer.sights

    async def open(self) -> None:
        """Read the header and plan."""
        with self.clock.timing("plan"):
            async with self._deadline.kept():
                await self._viewer.open()

    async def close(self) -> None:
        """Free everything; twice is once."""
        await self._viewer.close()

    async def rest(self) -> None:
        """Free what nobody uses right now; the next question watches the video again."""
        await self._viewer.rest()

    async def ask(
        self,
        questions: Sequence[Ask | str],
        *,
        sampling: Sampling | None = None,
        after: Reply | None = None,
        turns: Turns = (),
        listener: Listener = ignore,
    ) -> list[Reply]:
        """Answer all questions, of the whole video; a failed one has its code in its answer.

        after: the answer they follow up; without it they begin at the end of the video. turns: the
        conversation so far as texts, where there is no reply to follow up; of every window alike.
        sampling: the checkpoint's own if not given.
        """
        asks = tuple(Ask(question=each) if isinstance(each, str) else each for each in questions)
        tasks = Tasks(caption=None, asks=asks, sampling=sampling or self._flow.model.sampling)
        ledger = Ledger()
        asked = await self.perform(
            tasks, after=after, turns=turns, ledger=ledger, listener=listener
        )
        by_task = {
            request.task_index: (request, said)
            for request, said in asked  # last, whole
        }
        return [
            Reply(
                answers([by_task[index]])[0],
                ledger.conversations.get(index, {}),
                ledger.usages[index],
            )
            for index in range(1, len(asks) + 1)
        ]

    async def ground(
        self,
        query: str,
        *,
        times_s: Sequence[float] = (),
        sampling: Sampling | None = None,
        listener: Listener = ignore,
    ) -> tuple[Box, ...]:
        """Where something is in the frames shown at these times; without any, half-way through."""
        ground = Ground(query=query, times_s=tuple(times_s))
        tasks = Tasks(
            caption=None, grounds=(ground,), sampling=sampling or self._flow.model.sampling
        )
        return boxes(await self.perform(tasks, listener=listener), source=self.source_size)

    @property
    def source_size(self) -> Size:
        """Of the picture that boxes are in."""
        return Size(self.plan.source_height, self.plan.source_width)

    async def perform(
        self,
        tasks: Tasks,
        *,
        after: Reply | None = None,
        turns: Turns = (),
        ledger: Ledger | None = None,
        listener: Listener = ignore,
        is_last: bool = False,
    ) -> list[Asked]:
        """Do all tasks: what was asked of every window, then what brings their answers together.

        ledger: is filled with every task's conversation on each window, and its tokens.
        is_last: nothing will be asked after this.
        """
        self._num_asking += 1
        ledger = ledger or Ledger()
        earlier = partial(_conversation, after, self._flow.model.prompts.conversation(turns))

        def hear(event: Event) -> None:
            self._deadline.heard()
            listener(event)

        try:
            async with self._deadline.kept(num_windows=len(self.plan.windows)):
                asked = await self._watch_and_ask(
                    tasks, earlier, ledger, listener=hear, is_last=is_last
                )
                return asked + await self._combined(asked, tasks, ledger, listener=hear)
        finally:
            self._num_asking -= 1

    async def _watch_and_ask(
        self,
        tasks: Tasks,
        earlier: Callable[[Request], Ids],
        ledger: Ledger,
        *,
        listener: Listener,
        is_last: bool,
    ) -> list[Asked]:
        views = make_views(self.plan, tasks, still_at=self._viewer.facts.still_at)
        for view in views:
            self.sights.setdefault(key_of(view), Sight(view.window.num_frames))
        listener(self._planned(views))
        asked: list[Asked] = []
        try:
            for view in views:
                questions = self._flow.model.prompts.questions(
                    view, view.requests, earlier=[*map(earlier, view.requests)]
                )
                async with self._viewer.seen(view, listener) as watched:
                    watched.num_uses += 1
                    is_new = watched.num_uses == 1
                    said = await self._written(
                        watched.stream, view.requests, questions, listener=listener, closes=is_last
                    )
                asked += zip(view.requests, said, strict=True)
                num_video = view.window.grid.num_tokens
                for each in zip(view.requests, questions, said, strict=True):
                    ledger.add(*each, num_video=num_video, is_new=is_new)
        finally:
            if self._num_asking == 1:
                await self._viewer.let_go_of_video()
        return asked + unshown(self.plan, tasks)

    async def _combined(
        self, asked: Sequence[Asked], tasks: Tasks, ledger: Ledger, *, listener: Listener
    ) -> list[Asked]:
        """Windows' answers brought together, in as many rounds as their number needs."""
        prompts = self._flow.model.prompts
        max_parts = prompts.max_parts(tasks.sampling.max_new_tokens)
        parts, whole = list(asked), list[Asked]()
        while requests := combine(parts, max_parts=max_parts):
            await self.rest()  # or its own windows could keep the room that this needs
            stream = await self._viewer.room_for(None)
            try:
                questions = prompts.questions(None, requests)
                said = await self._written(
                    stream, requests, questions, listener=listener, closes=True
                )
            finally:
                await stream.close()
            for each in zip(requests, questions, said, strict=True):
                ledger.count(*each)
            parts = list(zip(requests, said, strict=True))
            whole += [part for part in parts if part[0].window_index is None]
        return whole

    async def _written(
        self,
        stream: DecoderStream[object],
        requests: Sequence[Request],
        questions: Sequence[Question],
        *,
        listener: Listener,
        closes: bool,
    ) -> list[Completion]:
        """How each request ended, in their order."""
        said: dict[int, Completion] = {}
        since_s = dict.fromkeys(range(len(requests)), time.monotonic())
        with self.clock.timing("generate"):
            async with aclosing(stream.ask(questions, closes=closes)) as deltas:
                async for delta in deltas:
                    index = delta.question_index
                    ended = delta.completion
                    if delta.text:
                        self.clock.mark_first_word()
                    if delta.text or ended:
                        num_tokens = len(ended.token_ids) if ended else 0
                        span = self._process.span("generate", since_s[index], num_tokens=num_tokens)
                        since_s[index] = span.ended_s
                        listener(Words(requests[index], delta.text, span))
                    if ended:
                        said[index] = ended
        return [said[index] for index in range(len(requests))]

    def _planned(self, views: Sequence[View]) -> Planned:
        new = [view for view in views if not self._viewer.has(view)]
        span = self._process.span("plan", self._started_s)
        num_steps = sum(view.window.grid.t for view in new)
        return Planned(media=self.media, plan=self.plan, num_steps=num_steps, span=span)

    async def __aenter__(self) -> "Session":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _conversation(after: Reply | None, otherwise: Ids, request: Request) -> Ids:
    return otherwise if after is None else after.conversation.get(request.window_index, ())
