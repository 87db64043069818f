"""The ports over Ray: calls to actors, and every wait for them. Payloads are references here."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, cast

from ray import ObjectRef

from actors.calls import Handle, Result, answer_of, recover
from actors.parcel import FrameParcel, TokenParcel
from pipeline.engine.ids import StreamId
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question, TextDelta
from pipeline.errors import Transient
from pipeline.leases import Claim
from pipeline.ports import Encoded, Opened, Read
from pipeline.span import Span
from pipeline.tasks.requests import View
from pipeline.video.source import Source

FramesRef = ObjectRef[FrameParcel]
TokensRef = ObjectRef[TokenParcel]


class Client:
    """An actor as its callers see it: whatever is lost on the way is Transient.

    stall_s: silence after which the actor is dead; it is killed then, and starts again.
    answer_s: after which an answer is lost, whoever lives; as long as it takes if not given.
    """

    def __init__(self, handle: Handle, *, stall_s: float, answer_s: float | None = None) -> None:
        self.handle = handle
        self._stall_s = stall_s
        self._answer_s = answer_s

    async def ready(self) -> bool:
        """Wait until the actor answers; one that was lost starts again first."""
        return await recover(self.handle, patience_s=self._stall_s)

    async def _answer_of(self, call: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(self._answer_s):
                return await answer_of(self.handle, call, stall_s=self._stall_s)
        except TimeoutError:
            raise Transient(f"no answer in {self._answer_s:g} s") from None

    async def _batches(self, stream: Any) -> AsyncGenerator[Any, None]:
        """What a streaming call yields, item by item."""
        while True:
            try:
                reference = await self._answer_of(anext(stream))
            except StopAsyncIteration:
                return
            yield await self._answer_of(reference)


class _Holder(Client):
    """An actor in which things are open under names."""

    async def close(self, name: StreamId) -> None:
        """Have it closed; nobody waits for that."""
        self.handle.close.remote(name)

    def renew(self, claim: Claim) -> None:
        """Tell it what is still wanted; if this is lost, the next one comes soon."""
        self.handle.renew.remote(claim)

    async def release(self, owner: str) -> None:
        """Have everything closed that this owner left open; whoever was restarted holds nothing."""
        try:
            await self._answer_of(self.handle.release.remote(owner))
        except Transient:
            return


class FrameReaderClient(_Holder):
    """A frame reader in an actor; frames are references to FrameParcels."""

    async def sandbox(self) -> tuple[str, ...]:
        """The measures of pipeline/video/confinement.py that hold decoders there."""
        return cast(tuple[str, ...], await self._answer_of(self.handle.sandbox.remote()))

    async def open(self, video: StreamId, source: Source) -> Opened:
        return cast(Opened, await self._answer_of(self.handle.open.remote(video, source)))

    async def look(self, source: Source) -> None:
        """SourceAway if the reader's node does not have this file."""
        await self._answer_of(self.handle.look.remote(source))

    async def read(self, video: StreamId, begins: View | None) -> Read[FramesRef]:
        frames, noted = self.handle.read.remote(video, begins)
        is_damaged, span = await self._answer_of(noted)
        return Read(frames, is_damaged, span)


class VisionEncoderClient(Client):
    """An encoder in an actor; tokens are references to TokenParcels."""

    async def encode(
        self, frames: FramesRef, *, left: int, yields: bool = False
    ) -> Encoded[TokensRef]:
        tokens, noted = self.handle.encode.remote(frames, left, yields)
        return Encoded(tokens, await self._answer_of(noted))


class LanguageDecoderClient(_Holder):
    """A decoder replica in actors."""

    async def open(self, stream: StreamId, media: Sequence[PromptWindow]) -> None:
        # Room comes when other videos end, however long those take.
        await answer_of(self.handle, self.handle.open.remote(stream, media), stall_s=self._stall_s)

    async def is_short(self) -> bool:
        """Whether a stream waits for room; not in one that is lost."""
        try:
            return await self._answer_of(self.handle.is_short.remote())
        except Transient:
            return False

    async def prefill(self, stream: StreamId, tokens: TokensRef, *, number: int, left: int) -> Span:
        call = self.handle.prefill.remote(stream, tokens, number, left)
        return cast(Span, await self._answer_of(call))

    async def ask(
        self, stream: StreamId, questions: Sequence[Question], *, closes: bool
    ) -> AsyncGenerator[TextDelta, None]:
        """Ends with the last answer: the decoder closes the stream by itself."""
        ask = self.handle.ask.options(num_returns="streaming")
        num_left = len(questions)
        async for deltas in self._batches(ask.remote(stream, questions, closes)):
            for delta in deltas:
                num_left -= delta.completion is not None
                yield delta
            if not num_left:
                return
