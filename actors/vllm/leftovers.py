"""What is left of killed processes of vLLM in /dev/shm: memory until somebody removes it.

Queues and locks are Python's shared memory and semaphores. Python's own tracker removes them
unless it is killed too, as Ray does with all that an actor started, at every end. So they lose
their names as soon as all processes have them: memory without a name ends with the last of those.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_OURS = re.compile(r"(/dev/shm/(?:psm_|sem\.mp-)\w+)$", re.MULTILINE)


def shared_files(process_id: int) -> frozenset[Path]:
    """What this process has mapped of the kinds that multiprocessing makes; none if it is gone."""
    try:
        maps = Path(f"/proc/{process_id}/maps").read_text()
    except OSError:
        return frozenset()
    return frozenset(map(Path, _OURS.findall(maps)))


def remove(files: Iterable[Path]) -> None:
    """Whatever of them is still there; who has mapped one keeps it until it ends."""
    for file in files:
        with suppress(OSError):
            file.unlink()
