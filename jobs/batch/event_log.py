"""What happens in a job, for machines: a JSON object per line, without a word of user or model.

started   videos and parts of the job, and how many of both were there before; passed_over: files
          of the listing that are not taken, by type
video     a row is made: video_id, uri, status, code, how many of its captions, answers and boxes
          failed, seconds of video and of work
part      a part is in the store for good
found     another driver on the same job has made a part
waiting   the store or the fleet fails everybody, and no other video is begun
going on  that is over
stopping  no new part is begun, those under way get grace_s seconds
finished, stopped   the last line of a run; stopped has the kind of error
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jobs.places import written_to
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


@contextmanager
def open_events(path: Path | None) -> Iterator[IO[str] | None]:
    """The file, to be added to. ConfigError if that cannot be."""
    if path is None:
        yield None
        return
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--events {path}: {error.strerror}") from error
    with written_to(path), file:
        yield file
