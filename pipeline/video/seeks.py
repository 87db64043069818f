"""Which keyframes to decode from, so that the wanted frames cost the least. Plain arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Seek = Literal["auto", "always", "never"]

# What a jump costs, in decoded frames: draining the decoder, finding the place, filling it again.
JUMP_COST_FRAMES = 6
START = -1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Wanted places, decoded in one go from the keyframe at place `key`, or from the START."""

    key: int
    wanted: tuple[int, ...]


def cut_stretches(
    wanted: Sequence[int],
    *,
    is_key: NDArray[np.bool_],
    seek: Seek = "auto",
    num_children: int = 1,
) -> list[Stretch]:
    """Cut the wanted places into stretches, each decoded from its own keyframe.

    auto jumps where that decodes fewer frames than going on; always jumps before every frame; never
    goes straight through. With several children a stretch ends at every keyframe worth starting
    from, so that there are some to share out. wanted: one or more places in order of presentation,
    ascending. is_key: (T,), whether decoding may begin there.
    """
    position = np.asarray(wanted, np.int64)
    keys = np.flatnonzero(is_key)
    nearest = np.searchsorted(keys, position, side="right") - 1  # -1: no keyframe before it
    key_position = np.where(nearest >= 0, keys[nearest] if len(keys) else 0, START)
    is_cut = _cuts(position, key_position, seek=seek, is_shared=num_children > 1)
    starts = np.flatnonzero(is_cut)
    stops = np.append(starts[1:], len(position))
    return [
        Stretch(
            START if seek == "never" and key_position[start] == 0 else int(key_position[start]),
            tuple(map(int, wanted[start:stop])),
        )
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]


def _cuts(
    position: NDArray[np.int64], key_position: NDArray[np.int64], *, seek: Seek, is_shared: bool
) -> NDArray[np.bool_]:
    """For each wanted frame, whether a new stretch begins with it. The first always does."""
    is_cut = np.zeros(len(position), np.bool_)
    if seek == "always":
        is_cut[:] = key_position >= 0
    elif seek == "auto":
        saved = key_position[1:] - position[:-1]  # frames between that need not be decoded
        is_cut[1:] = saved > (0 if is_shared else JUMP_COST_FRAMES)
    elif is_shared:
        is_cut[1:] = key_position[1:] > position[:-1]
    is_cut[0] = True
    return is_cut
