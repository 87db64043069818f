"""`vidray formats`: what is read, what is refused, and why."""

from collections.abc import Iterator
from textwrap import wrap

from pipeline.errors import FailureCode
from pipeline.store.sources import VIDEO_SUFFIXES
from pipeline.video.ffmpeg.codecs import STILL_CODECS, VIDEO_CODECS

WIDTH = 78
CONTAINERS = {  # by FFmpeg's name, as pipeline.video.sniff tells them by their first bytes
    "mov": "MP4, MOV, M4V, 3GP, fragmented or not",
    "matroska": "Matroska, WebM",
    "avi": "AVI",
    "mpegts": "MPEG transport stream: packets of 188, 192 (Blu-ray) or 204 bytes",
    "mpeg": "MPEG program stream, VOB",
    "flv": "Flash video",
    "asf": "ASF, WMV",
    "ogg": "Ogg",
    "mxf": "MXF",
    "ivf": "IVF",
    "mpegvideo": "raw MPEG-1 and MPEG-2",
    "h264": "raw H.264",
    "hevc": "raw HEVC",
    "png_pipe": "PNG picture, named .png",
    "jpeg_pipe": "JPEG picture, named .jpg or .jpeg",
}
REFUSED = {
    FailureCode.NOT_A_VIDEO: "text, archives, pictures named like a video; playlists: nothing "
    "that a file names is opened or fetched",
    FailureCode.UNSUPPORTED_CONTAINER: "GIF, RealMedia, MP3, WAV and other RIFF files than AVI: "
    "pictures, sound, or what nobody makes any more to test it with",
    FailureCode.UNSUPPORTED_CODEC: "any codec that is not listed: each decoder is one more way in "
    "for a hostile file",
    FailureCode.UNSUPPORTED_PIXEL_FORMAT: "frames that cannot be turned into RGB",
    FailureCode.NO_VIDEO_STREAM: "sound alone, or a cover picture beside it",
    FailureCode.ENCRYPTED: "DRM: there is no key to it",
    FailureCode.ASPECT_RATIO: "frames more than 200 times as long as wide: Qwen2-VL takes no such",
    FailureCode.TOO_MANY_PIXELS: "frames above a limit that the profile sets; so are files "
    f"({FailureCode.TOO_MANY_BYTES}) and the time to read one ({FailureCode.DECODE_TIMEOUT})",
    FailureCode.NOT_A_REGULAR_FILE: "folders, pipes, devices, links that lead in a circle or out "
    "of bounds",
}


def show() -> None:
    """Print the table."""
    for line in _lines():
        print(line)


def _lines() -> Iterator[str]:
    yield "containers, told by their first bytes and not by their names:"
    for text in CONTAINERS.values():
        yield f"  {text}"
    yield "\ncodecs, as FFmpeg calls them:"
    yield from _indented(", ".join(sorted(VIDEO_CODECS)))
    yield from _indented(f"pictures: {', '.join(sorted(STILL_CODECS))}")
    yield "\nnames that a folder's listing is searched for (batch run --suffix says others):"
    yield from _indented(" ".join(VIDEO_SUFFIXES))
    yield "\nrefused, with this code in the row of the video:"
    for code, text in REFUSED.items():
        yield f"  {code}"
        yield from _indented(text, by=4)


def _indented(text: str, *, by: int = 2) -> list[str]:
    return wrap(text, WIDTH, initial_indent=" " * by, subsequent_indent=" " * by)
