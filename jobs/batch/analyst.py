"""One planned video to its row: its bytes fetched, its tasks done, its own faults recorded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.batch.recipe import Recipe, source_of
from pipeline.analyse import failure
from pipeline.errors import BadInput
from pipeline.store.archive import Archive, LocalCopy
from pipeline.store.items import Item
from pipeline.tasks.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Who is named in the row of a video that never reached the fleet."""

    model: str
    model_digest: str


class Analyst:
    """Makes rows. What it raises is not a video's fault and stops the job.

    analyse: what a fleet or a process does with a local file: `analyse(source, tasks, video_id=)`.
    """

    def __init__(
        self,
        analyse: Callable[..., Awaitable[Record]],
        archive: Archive,
        recipe: Recipe,
        maker: Maker,
    ) -> None:
        self._analyse = analyse
        self._archive = archive
        self._recipe = recipe
        self._maker = maker

    async def make_row(self, item: Item) -> Record:
        """The item's record, good or failed."""
        source = source_of(item)
        tasks = self._recipe.tasks
        try:
            tasks = self._recipe.tasks_for(item)
            async with self._opened(item) as copy:
                found = replace(source, path=Path(copy.path), etag=copy.info.etag)
                record = await self._analyse(found, tasks, video_id=item.video_id)
        except BadInput as error:
            record = failure(source, tasks, self._maker, video_id=item.video_id, error=error)
        if record.size_bytes is None:
            record = replace(record, size_bytes=item.size_bytes)
        return record

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
