"""Whether what decord shows is proven to be the plan's frames.

It has a decoder of its own and knows frames by their place: one frame more or less, or one that is
damaged, and it shows others without a word.
"""

from collections.abc import Callable

import numpy as np

from pipeline.errors import BadInput, FailureCode
from pipeline.types import MediaInfo
from pipeline.video.presentation import Measured, Order
from pipeline.video.wire import Header

DECORD_CONTAINERS = ("mov", "matroska", "avi")


def require_provable(
    info: MediaInfo, order: Order, header: Header, measure: Callable[[], Measured]
) -> None:
    """Raise BadInput, by name, where it is not. measure: decodes all, so it is asked last."""
    is_listed = len(order.pts) == header.num_packets
    reasons = {
        "it does not find every frame in this container": info.container not in DECORD_CONTAINERS,
        "the order of its frames is not that of its stamps": order.is_numbered
        or order.is_joined
        or order.is_permuted,
        "some of its packets show no frame": not is_listed,
        "it turns no video of this container upright": bool(info.rotation_deg)
        and info.container != "mov",
        "it does not mirror": info.is_mirrored,
        "its colours would be others": bool({"interlaced", "colour_guessed"} & {*info.flags}),
        "it does not crop": header.row_width != header.coded_width,
    }
    for reason, applies in reasons.items():
        if applies:
            raise BadInput(FailureCode.NOT_DECODABLE, f"not with decord: {reason}")
    measured = measure()
    if measured.is_refused.any() or not np.array_equal(measured.outputs, order.packets):
        detail = "not with decord: some of its frames are damaged"
        raise BadInput(FailureCode.NOT_DECODABLE, detail)
