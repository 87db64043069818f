"""What tells a body that is sent again: the key that its client gave it, its length, its sha256."""

import hashlib

from starlette.datastructures import Headers

_HEADER = "idempotency-key"
_AFTER_KEY = "\n"  # which no header holds


def body_id_of(headers: Headers, raw: bytes) -> str:
    return f"{id_start(headers, len(raw))}{hashlib.sha256(raw).hexdigest()}"


def id_start(headers: Headers, length: int) -> str:
    """How it begins: known before any of the body has come."""
    return f"{headers.get(_HEADER, '')}{_AFTER_KEY}{length}-"


def key_of(body_id: str) -> str:
    """The client's own key; empty without one."""
    return body_id.partition(_AFTER_KEY)[0]
