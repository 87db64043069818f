"""What av raises, as BadInput: the only place that knows both."""

from collections.abc import Iterator
from contextlib import contextmanager

from av.error import DecoderNotFoundError, FFmpegError

from pipeline.errors import BadInput, FailureCode


@contextmanager
def translate_av_errors(*, is_cut: bool = False) -> Iterator[None]:
    """Turn what av raises on bad files into BadInput; a file that ends early is truncated."""
    try:
        yield
    except MemoryError as error:
        raise BadInput(FailureCode.DECODE_MEMORY, "decoding ran out of memory") from error
    except DecoderNotFoundError as error:
        raise BadInput(FailureCode.UNSUPPORTED_CODEC, "there is no decoder for it") from error
    except (FFmpegError, EOFError, LookupError, ValueError) as error:  # the last two: PyAV's own
        if is_cut:
            raise BadInput(FailureCode.TRUNCATED, "the file ends before its header says") from error
        raise BadInput(FailureCode.NOT_DECODABLE, "FFmpeg cannot read it") from error
