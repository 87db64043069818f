"""One planned video to its row: its bytes fetched, its tasks done, its own faults recorded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.batch.method import Method, source_of
from jobs.workplace import Analyse
from pipeline.analyse import failure
from pipeline.errors import BadInput, FailureCode, ObjectRefused, StoreDenied, Transient
from pipeline.events import Event
from pipeline.model_identity import ModelIdentity
from pipeline.store.archive import Archive, LocalCopy
from pipeline.store.items import Item
from pipeline.store.open import S3_SCHEME
from pipeline.tasks.records import Record
from pipeline.threads import in_thread

LOOK_S = 120.0  # that a file system may take to look at a file
Hear = Callable[[str, Event], None]


class Analyst:
    """Makes rows, one try each. What it raises is not a video's fault and stops the job.

    hear: is told of each event and of the video it happens to. look_s: that looking at a local file
    may take.
    """

    def __init__(
        self,
        analyse: Analyse,
        archive: Archive,
        method: Method,
        model: ModelIdentity,
        *,
        hear: Hear = lambda video_id, event: None,
        look_s: float = LOOK_S,
    ) -> None:
        self._analyse = analyse
        self._archive = archive
        self._method = method
        self._model = model
        self._hear = hear
        self._look_s = look_s

    async def make_row(self, item: Item) -> Record:
        """The item's record, good or failed."""
        source = source_of(item)
        tasks = self._method.tasks
        try:
            tasks = self._method.tasks_for(item)
            async with self._opened(item) as copy:
                found = replace(
                    source,
                    path=Path(copy.path),
                    etag=copy.info.etag,
                    size_bytes=copy.info.size_bytes,
                )
                record = await self._analyse(
                    found,
                    tasks,
                    video_id=item.video_id,
                    listener=partial(self._hear, item.video_id),
                )
        except BadInput as error:
            record = failure(source, tasks, self._model, video_id=item.video_id, error=error)
        if record.size_bytes is None:
            record = replace(record, size_bytes=item.size_bytes)
        return replace(record, extra=dict(item.extra))

    @asynccontextmanager
    async def _opened(self, item: Item) -> AsyncIterator[LocalCopy]:
        """The item's bytes; fetching waits in a thread, after the store's own retries for good."""
        context = self._archive.open(item)
        # A download has a deadline of its own, which counts its silence.
        look_s = None if item.uri.startswith(S3_SCHEME) else self._look_s
        async with _answering(look_s):
            with _readable():
                copy = await in_thread(context.__enter__)

        async def leave(*error: Any) -> bool | None:
            async with _answering(self._look_s):
                with _readable() if error == (None, None, None) else nullcontext():
                    return await in_thread(context.__exit__, *error)

        async with AsyncExitStack() as stack:
            stack.push_async_exit(leave)
            yield copy


@asynccontextmanager
async def _answering(patience_s: float | None) -> AsyncIterator[None]:
    """A file system that does not answer is a store that does not."""
    try:
        async with asyncio.timeout(patience_s) as timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        detail = f"the file system does not answer for {patience_s:g} s"
        raise BadInput(FailureCode.SOURCE_UNREADABLE, detail) from error


@contextmanager
def _readable() -> Iterator[None]:
    """A store that does not give an object out, whatever the reason: its row, or an outage."""
    try:
        yield
    except (Transient, StoreDenied, ObjectRefused) as error:
        raise BadInput(FailureCode.SOURCE_UNREADABLE, str(error)) from error
