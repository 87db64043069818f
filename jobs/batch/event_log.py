"""What happens in a job, for machines: a JSON object per line, without a word of user or model.

started   videos and parts of the job, and how many of both were there before
video     a row is made: video_id, uri, status, code, seconds of video and of work
part      a part is in the store for good
stopping  no new part is begun, those under way get grace_s seconds
finished, stopped   the last line of a run; stopped has the kind of error
"""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from pipeline.errors import ConfigError


class Events:
    """Appends to a file, or does nothing without one."""

    def __init__(self, file: IO[str] | None = None, *, job_id: str) -> None:
        self._file = file
        self._job_id = job_id

    def tell(self, event: str, **fields: object) -> None:
        """time_s is Unix time."""
        if self._file is not None:
            line = {"event": event, "time_s": time.time(), "job": self._job_id, **fields}
            print(json.dumps(line), file=self._file, flush=True)


def open_events(path: Path | None) -> AbstractContextManager[IO[str] | None]:
    """The file, to be added to. ConfigError if that cannot be."""
    if path is None:
        return nullcontext()
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--events {path}: {error.strerror}") from error
