"""One question being answered: its words so far, and how it ended, for whoever listens."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

from jobs.serve.left_stream import ENDS, AnswerEntry, LeftAnswer, reply_fields, reply_of
from jobs.serve.refusals import Refusal, refusal_of
from jobs.serve.shared_stream import EVENTS, SharedStream
from jobs.serve.stream_log import LoggedEvent
from pipeline.config import Sampling
from pipeline.errors import BadInput
from pipeline.events import Event, Moved, Planned
from pipeline.reply import Reply, Usage
from pipeline.tasks.tasks import CAPTION_IMAGE, CAPTION_VIDEO, Ask

FINISH = {"stop": "stop", "constraint": "stop", "length": "length"}  # as OpenAI's clients know it
ARRIVE_S = 10.0  # until who asked listens: under load that takes a while
SHARED = ("watching", *EVENTS.values())  # what happens to the video is told to all


class AnswerRun:
    """Begin it, or go on with it; then it runs until it has ended, or is paused since nobody has
    listened for linger_s. follows: the answer that it follows up. on_rest: it runs no more.
    """

    def __init__(
        self,
        stream: SharedStream,
        entry: AnswerEntry,
        ask: Ask,
        sampling: Sampling,
        *,
        follows: Reply | None = None,
        deadline_s: float,
        on_rest: Callable[["AnswerRun"], None],
    ) -> None:
        self.stream = stream
        self.entry = entry
        self.ask = ask
        self.text = ""
        self.reply: Reply | None = None
        self.refusal: Refusal | None = None
        self.asked: LoggedEvent
        self.end: LoggedEvent | None = None
        self.first_word_s: float | None = None
        self.total_s: float | None = None
        self.num_listeners = 0
        self._follows = follows
        self._sampling = sampling
        self._deadline_s = deadline_s
        self._on_rest = on_rest
        self._started_s = time.monotonic()
        self._num_heard = 0  # characters of this attempt
        self._frames_decoded = 0
        self._task: asyncio.Task[None] | None = None
        self._is_given_up = False
        self._is_paused = False

    def begin(self) -> None:
        entry = self.entry
        asked = {
            "answer": self.id,
            "question": self.ask.question,
            "after": entry.after,
            "manner": entry.manner.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        self.asked = self.stream.log.append("asked", asked, answer=self.id, kept=entry.fields)
        self._start()

    def take_over(self, left: LeftAnswer) -> None:
        """From where it was left: ended, paused, or to be gone on with at once."""
        self.asked, self.text, self.end = left.asked, left.text, left.end
        if left.is_paused:
            self._is_paused, self.total_s = True, 0.0
            return
        if left.end is None:
            self._start()
            return
        kept = json.loads(left.end.kept or "{}")
        if left.end.name == "failed":
            self.refusal = Refusal(**kept)
            return
        body = left.end.data
        self.text = body["text"]
        self.reply = reply_of(kept)
        self.first_word_s, self.total_s = (
            body["timings"][name] for name in ("first_word_s", "total_s")
        )
        self._frames_decoded = body["usage"]["frames_decoded"]

    def go_on(self) -> None:
        """With one that was paused: all of it is made again, and only what is new is told."""
        self._is_paused = False
        self.stream.log.append("resumed", {"answer": self.id}, answer=self.id)
        self._start()

    def _start(self) -> None:
        self._is_given_up, self._num_heard = False, 0
        self.stream.num_running += 1
        self._task = asyncio.create_task(self._run())
        self._give_up_after(max(self.entry.linger_s, ARRIVE_S))  # unless somebody listens then

    @property
    def id(self) -> str:
        return self.entry.answer_id

    @property
    def created_at(self) -> int:
        """Unix seconds."""
        return self.entry.created_at

    @property
    def most_tokens(self) -> int:
        """That it may write."""
        return self._sampling.max_new_tokens

    @property
    def ended_at(self) -> float:
        """Unix seconds, of one that has ended or is paused."""
        return self.created_at + (self.total_s or 0.0)

    @property
    def status(self) -> Literal["running", "paused", "done", "failed"]:
        if self.refusal is not None:
            return "failed"
        if self.reply is not None:
            return "done"
        return "paused" if self._is_paused else "running"

    @property
    def usage(self) -> Usage:
        return self.reply.usage if self.reply else Usage()

    @property
    def finish_reason(self) -> str | None:
        return FINISH[self.reply.answer.finish_reason or "stop"] if self.reply else None

    @property
    def body(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "id": self.id,
            "object": "vidray.answer",
            "stream": self.stream.id,
            "status": self.status,
            "question": self.ask.question,
            "after": self.entry.after,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "error": self.refusal and self.refusal.body["error"],
            "usage": {
                "prompt_tokens": usage.num_prompt,
                "video_tokens": usage.num_video,
                "cached_tokens": usage.num_cached,
                "completion_tokens": usage.num_completion,
                "frames_decoded": self._frames_decoded,
            },
            "timings": {"first_word_s": self.first_word_s, "total_s": self.total_s},
        }

    async def ended(self) -> None:
        """Return when it has; the refusal is raised. Counts as listening."""
        async with self._listening():
            await self._over()
            await self.end_told()
        if self.refusal is not None or self.reply is None:
            raise self.refusal or _stopped()

    async def events(self, after: int | None = None) -> AsyncIterator[LoggedEvent]:
        """Its own events and how the video moves meanwhile, to its end. Counts as listening."""
        start = self.asked.number - 1
        since = start if after is None else max(after, start)
        if self.end is not None and since >= self.end.number:
            return
        follow = self.stream.log.follow(since, answer=self.id)
        async with self._listening(), aclosing(follow) as log:  # type: ignore[type-var]
            try:
                async for event in log:
                    if event.name == "paused" and self.status == "paused":
                        raise _stopped()  # it was too late
                    if event.answer == self.id or event.name in SHARED:
                        yield event
                    if event.answer == self.id and event.name in ENDS:
                        return
            except Refusal as lost:
                yield LoggedEvent(since, "failed", json.dumps({"answer": self.id, **lost.body}))

    async def stop(self) -> None:
        """End it now, with what it has."""
        await asyncio.sleep(0)  # what has not begun would not end
        if self._is_paused:
            self._fail(_stopped())
        if self._task is not None:
            self._is_given_up = False
            self._task.cancel()
        await self._over()

    async def end_told(self) -> None:
        """Return when its end, if it has ended, is what another desk would find."""
        if self.end is not None:
            await self.stream.log.told(self.end)

    async def _over(self) -> None:
        while self._task is not None:
            await asyncio.wait({self._task})

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        self.num_listeners += 1
        try:
            yield
        finally:
            self.num_listeners -= 1
            self._give_up_after(self.entry.linger_s)

    def _give_up_after(self, pause_s: float) -> None:
        asyncio.get_running_loop().call_later(pause_s, self._give_up_if_alone)

    def _give_up_if_alone(self) -> None:
        if self._task is not None and not self._is_heard:
            self._is_given_up = True
            self._task.cancel()

    @property
    def _is_heard(self) -> bool:
        return self.num_listeners > 0 or self.stream.log.num_followers > 0

    async def _run(self) -> None:
        stream, failure = self.stream, None
        try:
            async with asyncio.timeout(self._deadline_s):
                (reply,) = await stream.session.ask(
                    [self.ask],
                    sampling=self._sampling,
                    after=self._follows,
                    turns=self.entry.turns,
                    listener=stream.hearing(self._hear),
                )
            answer = reply.answer
            if answer.code is not None:
                raise BadInput(answer.code, f"this question cannot be answered: {answer.code}")
            self._say(answer.answer[len(self.text) :])
            self.reply = reply
        except asyncio.CancelledError:
            failure = None if self._is_given_up else _stopped()
        except Exception as error:  # noqa: BLE001 - whoever listens is told
            failure = refusal_of(error)
        else:
            kept = reply_fields(reply)
        self.total_s = time.monotonic() - self._started_s
        stream.num_running -= 1
        stream.used_at = time.time()
        self._task = None
        if self.reply is not None:
            self.end = stream.log.append("answered", self.body, answer=self.id, kept=kept)
            self._follows = None  # with all that it holds
        elif failure is not None:
            self._fail(failure)
        elif self._is_heard:  # by who came back meanwhile
            self._start()
            return
        else:
            self._is_paused = True
            stream.log.append("paused", {"answer": self.id}, answer=self.id)
        self._on_rest(self)

    def _fail(self, refusal: Refusal) -> None:
        self.refusal, self._is_paused, self._follows = refusal, False, None
        failed = {"answer": self.id, "error": refusal.body["error"]}
        self.end = self.stream.log.append("failed", failed, answer=self.id, kept=refusal.fields)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Planned):  # also of another attempt after a loss, which says it again
            self._num_heard = 0
        elif isinstance(event, Moved):
            temporal = self.stream.session.plan.windows[0].grid.geometry.temporal
            self._frames_decoded += event.num_steps * temporal * (event.stage == "read")
        elif event.request.kind == "ask" and event.request.window_index is None:
            self._num_heard += len(event.text)
            num_new = self._num_heard - len(self.text)
            if num_new > 0:
                self._say(event.text[-num_new:])

    def _say(self, text: str) -> None:
        if not text:
            return
        if self.first_word_s is None:
            self.first_word_s = time.monotonic() - self._started_s
        self.text += text
        self.stream.log.append("words", {"answer": self.id, "text": text}, answer=self.id)


def _stopped() -> Refusal:
    return Refusal(499, "stopped", "the answer was stopped")


def description_of(stream: SharedStream) -> str:
    """What is asked where a client shows a video and says nothing."""
    return CAPTION_IMAGE if stream.session.media.is_still else CAPTION_VIDEO
