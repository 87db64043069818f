"""Bits that are left behind the last block of a picture.

Where bytes were overwritten, H.264's decoder reads other codes than were written, and rarely ends
where they did: it is told to complain of what is left. But some encoders leave some always.
"""

from itertools import chain, islice

from av.video.frame import VideoFrame

from pipeline.video.ffmpeg.opened_video import OpenedVideo

_NUM_PICTURES = 8


def leaves_bits(video: OpenedVideo, first: VideoFrame) -> bool:
    """Whether this is how the video was written: damage is seldom in most of its first pictures.

    first: the first of them, as the decoder gives it. It costs nothing if that is whole.
    """
    if not (video.tells_left_bits and first.is_corrupt):
        return False
    video.reopen()
    frames = (frame for packet in chain(video.packets(), [None]) for frame in video.decode(packet))
    are_broken = [frame.is_corrupt for frame in islice(frames, _NUM_PICTURES)]
    return 2 * sum(are_broken) > len(are_broken)
