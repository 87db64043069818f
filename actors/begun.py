"""What a Ray that did not get to its end has begun: processes, which nobody else would end."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from actors.ray_private import begun_by_ray

END_S = 1.0  # that the system gets to end them


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Whatever cuts Ray's start short (an error, a signal), what it has begun ends.

    Ray's own servers would end with this process, but their agents look for them only when they
    have started: on a busy machine a minute later.
    """
    with begun_by_ray() as begun:
        try:
            yield
        except BaseException:
            _end(begun)
            raise


def _end(begun: list[int]) -> None:
    """With all that they have begun: they are held first, or they would begin more meanwhile."""
    ended: list[psutil.Process] = []
    for pid in begun:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.suspend()
            ended += [*process.children(recursive=True), process]
    for each in ended:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(ended, timeout=END_S)
