"""A descriptor as FFmpeg's input."""

from os import SEEK_CUR, SEEK_END, fstat, pread


class Descriptor:
    """It has a position of its own: children share descriptors."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._position = 0

    def read(self, num_bytes: int) -> bytes:
        data = pread(self.fd, num_bytes, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        start = {SEEK_CUR: self._position, SEEK_END: fstat(self.fd).st_size}.get(whence, 0)
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position
