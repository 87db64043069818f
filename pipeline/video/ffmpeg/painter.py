"""A decoded frame as the pixels that a player shows of it."""

from fractions import Fraction

from av.error import FFmpegError
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter

from pipeline.errors import BadInput, FailureCode
from pipeline.video.cropping import Margins
from pipeline.video.ffmpeg.codecs import NOMINAL_FPS

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_LINES = 720


class Painter:
    """Frames of one video as RGB. margins: what is cropped off each."""

    def __init__(self, margins: Margins) -> None:
        self.margins = margins
        self._reformatter = VideoReformatter()
        self._weaver, self._weaver_kind = Graph(), (0, 0, "")

    def rgb(self, frame: VideoFrame, *, width: int, height: int) -> tuple[memoryview, int]:
        """What is shown of the frame as RGB24, and the bytes from row to row."""
        margins = self.margins
        whole_width = width + margins.left + margins.right
        whole_height = height + margins.top + margins.bottom
        try:
            if frame.interlaced_frame:
                frame = self._progressive(frame)
            rgb = self._reformatter.reformat(
                frame,
                whole_width,
                whole_height,
                "rgb24",
                src_colorspace=Colorspace.ITU709 if is_guessed_hd(frame) else None,
                threads=1,
            )
        except (FFmpegError, ValueError) as error:
            raise BadInput(
                FailureCode.UNSUPPORTED_PIXEL_FORMAT, f"{frame.format.name[:32]} has no RGB"
            ) from error
        plane = rgb.planes[0]
        start = margins.top * plane.line_size + 3 * margins.left
        return memoryview(plane)[start:], plane.line_size

    def _progressive(self, frame: VideoFrame) -> VideoFrame:
        """The same picture, said to be no pair of fields: as FFmpeg's program, which converts the
        colours of whole pictures.
        """
        kind = (frame.width, frame.height, frame.format.name)
        if kind != self._weaver_kind:
            graph = Graph()
            source = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=Fraction(1, NOMINAL_FPS),
            )
            filters = source, graph.add("setfield", "prog"), graph.add("buffersink")
            graph.link_nodes(*filters).configure()
            self._weaver, self._weaver_kind = graph, kind
        self._weaver.push(frame)
        woven = self._weaver.pull()
        if not isinstance(woven, VideoFrame):
            raise RuntimeError("a filter of pictures gives pictures")
        return woven


def is_guessed_hd(frame: VideoFrame) -> bool:
    """Tell whether its colours are not said: players take BT.709 from 720 lines on, else BT.601."""
    is_yuv = frame.format.name.startswith(("yuv", "nv", "p0"))
    return is_yuv and frame.colorspace == _UNSPECIFIED and frame.height >= _HD_LINES
