"""Where requests become work: videos are opened, questions asked, places found.

All of it on one event loop; how far everything is stands in the streams' logs, so that who listens
may come, go and come back.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from jobs.serve.admittance import Admittance
from jobs.serve.answer_run import AnswerRun, description_of
from jobs.serve.bodies import Manner, VideoSampling
from jobs.serve.body_ids import key_of
from jobs.serve.desk_sight import DeskSight
from jobs.serve.endpoint_options import EndpointOptions
from jobs.serve.grounding import end_groundings, ground
from jobs.serve.left_stream import AnswerEntry, LeftStream
from jobs.serve.manner import constraint_of, sampling_of
from jobs.serve.open_streams import FORGET_S, OpenStreams
from jobs.serve.rates import Rates
from jobs.serve.refusals import Refusal, above, not_found, refusal_of
from jobs.serve.remote_media import RemoteMedia
from jobs.serve.sent_bodies import SentBodies
from jobs.serve.served_videos import ServedVideos
from jobs.serve.shared_stream import SharedStream
from jobs.serve.shown_video import ShownVideos
from jobs.serve.stored_media import StoredMedia
from jobs.serve.sweeping import keep_sweeping
from jobs.serve.turnstile import Turnstile
from jobs.serve.uploads import Upload, Uploads
from jobs.sight.spans import VideoSpans
from pipeline.errors import VidrayError
from pipeline.reply import Reply, Turns
from pipeline.tasks.tasks import Ask

SWEEP_S = 30.0
LOOK_S = 2.0  # that it may take to see who is up
IN_LINE = 3.0  # of the decoders' room: what is answered, and as much again twice that waits
MAX_ANSWERS = 64  # of one stream that can still be looked up
SPARE_ANSWERS = 16  # beyond them, before the oldest go together


class Desk:
    """Use as `async with`."""

    def __init__(
        self,
        videos: ServedVideos,
        uploads: Uploads,
        options: EndpointOptions,
        *,
        spans: VideoSpans | None = None,
    ) -> None:
        self.videos = videos
        self.uploads = uploads
        self.options = options
        self.shown = ShownVideos(
            uploads,
            RemoteMedia(hosts=frozenset(options.allow_hosts), max_bytes=uploads.max_bytes),
            StoredMedia(places=options.allow_s3, max_bytes=uploads.max_bytes),
        )
        self.rates = Rates()
        self.streams = OpenStreams(
            videos,
            uploads,
            max_streams=options.max_streams,
            max_frames=options.max_frames,
            rates=self.rates,
            hear=lambda stream_id, event: self.sight.hear(stream_id, event),
            on_left=self._go_on,
            on_closed=self._drop,
        )
        self.sight = DeskSight(
            num_running=lambda: self.num_running,
            num_open=lambda: len(self.streams.all),
            folder=uploads.folder,
            spans=spans or VideoSpans(None),
        )
        self.admittance = Admittance(
            max_tokens=round(videos.kv_tokens * IN_LINE),
            max_running=options.key_answers,
            per_minute=options.key_requests,
        )
        self.turnstile = Turnstile()
        self.is_draining = False
        self.started_at = int(time.time())
        self._sent = SentBodies()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Desk":
        self._loop = asyncio.get_running_loop()
        await self.streams.journal.open()
        self._sweeping = asyncio.create_task(
            keep_sweeping(
                self.streams.sweep,
                self._sent.sweep,
                partial(asyncio.to_thread, self.uploads.sweep),
                pause_s=SWEEP_S,
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait({self._sweeping})  # what it was closing is closed
        await self.streams.end()

    @property
    def num_running(self) -> int:
        return sum(stream.num_running for stream in self.streams.all)

    def require_open(self) -> None:
        """Refusal (503) once it has been told to end."""
        if self.is_draining:
            raise Refusal(503, "draining", "this server is about to end; ask another", None, 1)

    async def require_ready(self) -> None:
        """Refusal (503) where a video would not be answered now."""
        self.require_open()
        try:
            async with asyncio.timeout(LOOK_S):
                missing = await self.videos.missing()
        except TimeoutError:
            missing = ["the cluster"]
        if missing:
            what = f"waiting for {', '.join(missing)}"
            raise Refusal(503, "lost", what, retry_after_s=1)

    def drain(self) -> None:
        """Take nothing new; who only listens is let go when the last answer is written.

        May be called from a signal's handler.
        """
        self.is_draining = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._let_go_if_done)

    def _let_go_if_done(self) -> None:
        if self.is_draining and not self.num_running:
            for stream in self.streams.all:
                stream.log.close()

    async def open(self, upload: Upload, sampling: VideoSampling) -> tuple[SharedStream, bool]:
        """The stream of these bytes, sampled so, and whether it is new. BadInput, Refusal."""
        self.require_open()
        self._require_below_ceilings(sampling)
        return await self.streams.open(upload, sampling)

    async def stream(self, stream_id: str, *, owner: str) -> SharedStream:
        """By its id, opened again where it gave way. Refusal (404) for whoever else's, too."""
        return await self.streams.get(stream_id, owner=owner)

    def streams_of(self, owner: str) -> list[SharedStream]:
        """Those that are open now."""
        return [stream for stream in self.streams.all if stream.owner == owner]

    async def answer(self, answer_id: str, *, owner: str) -> AnswerRun:
        """By its id, likewise."""
        for stream in self.streams_of(owner):
            if answering := stream.answers.get(answer_id):
                return answering
        entry = self.streams.journal.of_answer(answer_id)
        if entry is None or entry.owner != owner:
            raise not_found("answer")
        stream = await self.streams.again(entry, owner=owner)
        return answer_on(stream, answer_id)

    def ask(
        self,
        stream: SharedStream,
        question: str,
        manner: Manner,
        *,
        after: str | None = None,
        turns: Turns = (),
        linger_s: float,
        body_id: str | None = None,
    ) -> AnswerRun:
        """Begin to answer; an empty question asks for a description. body_id: of a chat."""
        self.require_open()
        followed = answer_on(stream, after) if after else None
        if followed is not None and followed.reply is None:
            raise Refusal(422, "invalid", "after must be a whole answer on this stream", "after")
        described = description_of(stream)
        entry = AnswerEntry(
            answer_id=f"answer-{uuid4().hex[:24]}",
            question=question if question.strip() else described,
            manner=manner.alone,
            turns=tuple((asked if asked.strip() else described, said) for asked, said in turns),
            linger_s=linger_s,
            created_at=int(time.time()),
            after=after,
            body_id=body_id,
        )
        answering = self._run(stream, entry, follows=followed.reply if followed else None)
        self._enter(stream, num_tokens=answering.most_tokens)
        stream.answers[answering.id] = answering
        answering.begin()
        self._forget_oldest(stream)
        return answering

    def go_on(self, answering: AnswerRun) -> None:
        """Somebody is about to listen to it: it is paused no more. Refusal (429) without room."""
        if answering.status == "paused":
            self.require_open()
            self._enter(answering.stream, num_tokens=answering.most_tokens)
            answering.go_on()

    def _run(self, stream: SharedStream, entry: AnswerEntry, *, follows: Reply | None) -> AnswerRun:
        options = self.options
        return AnswerRun(
            stream,
            entry,
            Ask(question=entry.question, constraint=constraint_of(entry.manner)),
            sampling_of(entry.manner, self.videos.sampling, max_tokens=options.max_answer_tokens),
            follows=follows,
            deadline_s=options.deadline_s,
            on_rest=self._leave,
        )

    def _go_on(self, stream: SharedStream, left: LeftStream) -> None:
        """Have its answers again; those that were being written are gone on with, places that
        were being looked for are not.
        """
        for each in left.answers:
            followed = stream.answers.get(each.entry.after or "")
            reply = followed.reply if followed else None
            try:
                answering = self._run(stream, each.entry, follows=reply)
            except VidrayError:
                continue  # of settings that were others
            if each.end is None and each.entry.after and reply is None:
                continue
            if each.end is None and not each.is_paused:
                self.admittance.enter_again(stream.owner)
                stream.answer_tokens += answering.most_tokens
            answering.take_over(each)
            stream.answers[answering.id] = answering
            self._sent.take(answering)
        end_groundings(stream, left)

    def _drop(self, stream: SharedStream) -> None:
        """Nobody gets it any more."""
        self.sight.closed(stream)
        for answering in stream.answers.values():
            self._sent.forget(answering)

    def _forget_oldest(self, stream: SharedStream) -> None:
        """Of what has ended, or is paused, and is heard by nobody."""
        rest = (each for each in stream.answers.values() if each.status != "running")
        ended = [each for each in rest if not each.num_listeners]
        if len(ended) <= MAX_ANSWERS + SPARE_ANSWERS:
            return
        for answering in ended[:-MAX_ANSWERS]:
            del stream.answers[answering.id]
            self._sent.forget(answering)
        stream.log.forget({each.id for each in ended[:-MAX_ANSWERS]})

    def is_known(self, owner: str, body_id: str) -> bool:
        """Whether this body's answer is being written, or was a moment ago."""
        is_left = self.streams.journal.of_body((owner, body_id)) is not None
        return is_left or self._sent.is_known(owner, body_id)

    def may_be_known(self, owner: str, start: str) -> bool:
        """The same of any body whose id begins so; looks at all of them."""
        return any(body_id.startswith(start) for body_id in self._bodies_of(owner))

    def _bodies_of(self, owner: str) -> list[str]:
        known = (*self._sent.bodies, *self.streams.journal.bodies)
        return [body_id for who, body_id in known if who == owner]

    def _require_key_for(self, owner: str, body_id: str) -> None:
        """Refusal (422) where the client's own key came with another body."""
        key = key_of(body_id)
        others = (each for each in self._bodies_of(owner) if each != body_id)
        if key and key in map(key_of, others):
            told = f"{key[:64]!r} came with another body just before; give each its own"
            raise Refusal(422, "invalid", f"the Idempotency-Key {told}", "idempotency-key")

    async def once(
        self, owner: str, body_id: str, begin: Callable[[], Coroutine[Any, Any, AnswerRun]]
    ) -> AnswerRun:
        """The answer that is begun for this body, unless it was sent before: then that one, which
        goes on if it was paused.

        What failed is begun again, and what was left where its video is gone: the body may hold it.
        """
        if left := self.streams.journal.of_body((owner, body_id)):
            try:
                await self.streams.again(left, owner=owner)
            except Refusal as refusal:
                if refusal.status != 404:
                    raise
        if not self._sent.is_known(owner, body_id):
            self._require_key_for(owner, body_id)
            self.admittance.require_chance(owner)
        answering = await self._sent.once(owner, body_id, begin)
        self.go_on(answering)
        return answering

    async def ground(
        self, stream: SharedStream, query: str, times_s: Sequence[float]
    ) -> dict[str, Any]:
        """Where something is; the events say so too."""
        self.require_open()
        sampling, code = self.videos.sampling, None
        self._enter(stream, num_tokens=sampling.max_new_tokens)
        stream.num_running += 1
        try:
            return await ground(
                stream,
                query,
                times_s,
                sampling=sampling,
                deadline_s=self.options.deadline_s,
                listener=partial(self.sight.hear, stream.id),
            )
        except Exception as error:
            code = refusal_of(error).code
            raise
        finally:
            stream.num_running -= 1
            stream.used_at = time.time()
            self.sight.rests(stream, status="failed" if code else "done", code=code)
            self._give_back(stream, num_tokens=sampling.max_new_tokens)
            self._let_go_if_done()

    def body_of(self, stream: SharedStream) -> dict[str, Any]:
        return {
            "id": stream.id,
            "object": "vidray.stream",
            "model": self.videos.name,
            "created_at": stream.entry.created_at,
            "expires_at": int(stream.used_at + FORGET_S),
            "etag": stream.upload.sha256,
            "file_id": stream.upload.id,
            "media": stream.media_body,
            "plan": stream.plan_body,
            "forecast": self.rates.forecast(stream.session.plan),
            "counters": stream.counters_body,
            "last_event_id": stream.log.last,
            "answers": [each.body for each in stream.answers.values()],
        }

    async def close(self, stream: SharedStream) -> None:
        """Stop what is being answered, and free everything; its id is gone."""
        await self.streams.close(stream)

    def _enter(self, stream: SharedStream, *, num_tokens: int) -> None:
        """Begin an answer of so many tokens; then `_give_back`. Refusal (429) without room."""
        held = sum(self._held(each) for each in self.streams.all)
        needed = self._held(stream, more=num_tokens) - self._held(stream)
        self.admittance.enter(stream.owner, num_tokens=needed, held=held)
        stream.answer_tokens += num_tokens

    def _give_back(self, stream: SharedStream, *, num_tokens: int) -> None:
        stream.answer_tokens -= num_tokens
        self.admittance.leave(stream.owner)

    def _held(self, stream: SharedStream, *, more: int = 0) -> int:
        """What its answers need in a decoder: its largest window, and room for themselves, of which
        some is reserved however short they are. Nothing where there are none.
        """
        answers = stream.answer_tokens + more
        if not answers:
            return 0
        largest = max(window.grid.num_tokens for window in stream.session.plan.windows)
        return largest + max(self.videos.question_tokens, answers)

    def _leave(self, answering: AnswerRun) -> None:
        self._give_back(answering.stream, num_tokens=answering.most_tokens)
        self.sight.ended(answering)
        self._let_go_if_done()

    def _require_below_ceilings(self, sampling: VideoSampling) -> None:
        options = self.options
        ceilings = {"fps": options.max_fps, "max_frames": float(options.max_frames)}
        for name, most in ceilings.items():
            value = getattr(sampling, name)
            if value is not None and value > most:
                raise above(name, most=most, got=value)


def answer_on(stream: SharedStream, answer_id: str) -> AnswerRun:
    """Refusal (404) where it is none of this stream's."""
    if (answering := stream.answers.get(answer_id)) is None:
        raise not_found("answer")
    return answering
