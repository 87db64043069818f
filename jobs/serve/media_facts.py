"""What a client is told of a video's header."""

from typing import Any

from pipeline.types import MediaInfo


def media_facts(media: MediaInfo) -> dict[str, Any]:
    return {
        "container": media.container,
        "codec": media.codec,
        "width": media.width,
        "height": media.height,
        "rotation_deg": media.rotation_deg,
        "duration_s": media.duration_s,
        "offset_s": media.offset_s,
        "num_frames": len(media.pts),
        "is_still": media.is_still,
        "flags": list(media.flags),
    }
