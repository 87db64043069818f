"""An S3 bucket of any number of keys that exist only in its listing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = 1000  # keys in one answer, as S3 has it
_ENTRY = """<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
<ETag>"{:032x}"</ETag><Size>1000000</Size><StorageClass>STANDARD</StorageClass></Contents>"""
_LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>keys</Name>\
<KeyCount>{}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>{}</IsTruncated>{}{}</ListBucketResult>"""


def key_of(number: int) -> str:
    return f"clips/{number // PAGE:05d}/{number:09d}.mp4"


@contextmanager
def key_server(num_keys: int) -> Iterator[str]:
    """Serve ListObjectsV2 of key_of(0) ... on loopback; yields the endpoint."""
    handler = type("_Keys", (_Handler,), {"num_keys": num_keys})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two sends
    num_keys: int

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        query = parse_qs(urlsplit(self.path).query)
        (after,) = query.get("continuation-token") or query.get("start-after") or [""]
        page = listing(_number_after(after), self.num_keys).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def listing(first: int, num_keys: int) -> str:
    """The page that begins with key number `first`."""
    stop = min(first + PAGE, num_keys)
    entries = "".join(_ENTRY.format(key_of(number), number) for number in range(first, stop))
    token = f"<NextContinuationToken>{key_of(stop - 1)}</NextContinuationToken>"
    is_last = stop == num_keys
    return _LISTING.format(
        stop - first, "false" if is_last else "true", "" if is_last else token, entries
    )


def _number_after(key: str) -> int:
    return int(key.rpartition("/")[2].removesuffix(".mp4")) + 1 if key else 0
