"""A multipart body as it comes in: its fields, and its file block by block, never held whole."""

from collections.abc import Awaitable, Callable

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from jobs.serve.refusals import Refusal

MAX_FIELD_BYTES = 4_096
MAX_HEADER_BYTES = 8_192
MAX_PARTS = 32


class UploadForm:
    """Feed it the body; it hands the blocks of the part "file" to `write`, in order."""

    def __init__(self, content_type: str, write: Callable[[bytes], Awaitable[None]]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refusal(422, "invalid", "an upload is a multipart/form-data body")
        self.fields: dict[str, str] = {}
        self.filename = ""
        self.has_file = False
        self.is_whole = False
        self._write = write
        self._blocks: list[bytes] = []
        self._name = ""
        self._field = bytearray()
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._num_parts = 0
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._part_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    async def feed(self, data: bytes) -> None:
        """The next bytes. Refusal where they are no form."""
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise Refusal(400, "bad_form", "the body is no multipart form") from None
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            await self._write(block)

    def _begin_part(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise Refusal(413, "too_large", f"a form has at most {MAX_PARTS} parts")
        self._headers, self._field, self._name = {}, bytearray(), ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._add_to_header(0, data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._add_to_header(1, data[start:end])

    def _add_to_header(self, part: int, piece: bytes) -> None:
        self._header[part].extend(piece)
        if len(self._header[part]) > MAX_HEADER_BYTES:
            told = f"a header of a form's part has at most {MAX_HEADER_BYTES} bytes"
            raise Refusal(413, "too_large", told)

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == "file":
            if self.has_file:
                raise Refusal(422, "invalid", "one file at a time", "file")
            self.has_file = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._blocks.append(data[start:end])
            return
        self._field.extend(data[start:end])
        if len(self._field) > MAX_FIELD_BYTES:
            raise Refusal(
                413, "too_large", f"a field of a form has at most {MAX_FIELD_BYTES} bytes"
            )

    def _end_part(self) -> None:
        if self._name != "file":
            self.fields[self._name] = self._field.decode("utf-8", "replace")

    def _end(self) -> None:
        self.is_whole = True
