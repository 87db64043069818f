"""decord as the second reader. Runs in the decoding child only: it may loop for ever on bad counts.

decord knows frames by their place, not by their stamp, and turns rotated video by itself. In
transport streams it begins at the second keyframe, so those are refused.
"""

from collections import deque
from collections.abc import Iterator

import decord

from pipeline.errors import BadInput, FailureCode
from pipeline.video.wire import ReadOrder, Run


def read(fd: int, runs: list[Run], order: ReadOrder) -> Iterator[memoryview]:
    """Each wanted frame as packed RGB24 rows; a run's stamps are places in presentation order.

    Raises BadInput when decord cannot open the file or sees other frames than the index lists.
    """
    decord.logging.set_level(decord.logging.QUIET)
    try:
        # The name is ours: the descriptor opened again, with a position of its own.
        video = decord.VideoReader(f"/proc/self/fd/{fd}", num_threads=order.threads)
        if len(video) != order.num_indexed:
            raise BadInput(
                FailureCode.NOT_DECODABLE,
                f"not with decord: it sees {len(video)} frames of {order.num_indexed}",
            )
        wanted = deque(place for run in runs for place in run.wanted)
        for place in range(wanted[-1] + 1):
            # One by one: decord's own seeking and skipping miss by the depth of reordering.
            frame = video.next()
            if place != wanted[0]:
                continue
            wanted.popleft()
            pixels = frame.asnumpy()
            if pixels.shape != (order.height, order.width, 3):
                raise BadInput(
                    FailureCode.NOT_DECODABLE, f"not with decord: it gives {pixels.shape}"
                )
            yield memoryview(pixels).cast("B")
    except (decord.DECORDError, RuntimeError, StopIteration) as error:
        raise BadInput(FailureCode.NOT_DECODABLE, "not with decord: it cannot read it") from error
