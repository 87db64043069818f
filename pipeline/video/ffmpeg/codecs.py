"""Which codecs are read, and what is special about some of them and of some demuxers."""

VIDEO_CODECS = frozenset(
    {
        *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mpeg1video"),
        *("prores", "mjpeg", "ffv1", "h263", "dvvideo"),
        *("flv1", "vp6f", "wmv1", "wmv2", "wmv3", "vc1", "msmpeg4v2", "msmpeg4v3", "theora"),
        *("svq1", "svq3", "cinepak", "indeo4", "indeo5", "dnxhd", "huffyuv", "ffvhuff"),
    }
)
# Their frames to which nothing refers can be left out packet by packet.
SKIPPING_DECODERS = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video"})
STILL_CODECS = frozenset({"png", "mjpeg"})
STILL_DEMUXERS = frozenset({"png_pipe", "jpeg_pipe"})
RAW_DEMUXERS = frozenset({"h264", "hevc", "mpegvideo"})
LOSSY_DEMUXERS = RAW_DEMUXERS | {"mpegts"}  # of streams that arrive in pieces
NOMINAL_FPS = 25  # where nothing says how many
