"""`vidray batch run` whose videos wait until they may begin: the N-th does when a file has N bytes.

python -m tests.held_command FILE batch run ...
So a test says how far a job gets, however slow either of them is.
"""

import asyncio
import sys
from itertools import count
from pathlib import Path

from jobs import cli
from jobs.batch.analyst import Analyst
from pipeline.store.items import Item
from pipeline.tasks.records import Record

LOOK_S = 0.01


def hold_videos(file: Path) -> None:
    """In the order in which the job takes them; one that is tried again has begun."""
    make_row, turns, begun = Analyst.make_row, count(1), set[str]()

    async def held(self: Analyst, item: Item) -> Record:
        if item.video_id not in begun:
            begun.add(item.video_id)
            turn = next(turns)
            while file.stat().st_size < turn:
                await asyncio.sleep(LOOK_S)
        return await make_row(self, item)

    Analyst.make_row = held  # type: ignore[method-assign]


if __name__ == "__main__":
    hold_videos(Path(sys.argv.pop(1)))
    cli.main()
