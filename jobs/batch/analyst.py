"""One planned video to its row: its bytes fetched, its tasks done, its own faults recorded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.batch.method import Method, source_of
from jobs.workplace import Analyse
from pipeline.analyse import failure
from pipeline.errors import BadInput
from pipeline.events import Event
from pipeline.served_model import ModelIdentity
from pipeline.store.archive import Archive, LocalCopy
from pipeline.store.items import Item
from pipeline.tasks.records import Record

Hear = Callable[[str, Event], None]


class Analyst:
    """Makes rows. What it raises is not a video's fault and stops the job.

    hear: is told of each event and of the video it happens to.
    """

    def __init__(
        self,
        analyse: Analyse,
        archive: Archive,
        method: Method,
        model: ModelIdentity,
        *,
        hear: Hear = lambda video_id, event: None,
    ) -> None:
        self._analyse = analyse
        self._archive = archive
        self._method = method
        self._model = model
        self._hear = hear

    async def make_row(self, item: Item) -> Record:
        """The item's record, good or failed."""
        source = source_of(item)
        tasks = self._method.tasks
        try:
            tasks = self._method.tasks_for(item)
            async with self._opened(item) as copy:
                found = replace(source, path=Path(copy.path), etag=copy.info.etag)
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
        copy = await asyncio.to_thread(context.__enter__)

        async def leave(*error: Any) -> bool | None:
            return await asyncio.to_thread(context.__exit__, *error)

        async with AsyncExitStack() as stack:
            stack.push_async_exit(leave)
            yield copy
