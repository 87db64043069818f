"""What the work at hand is about: the ids that log lines have beside their words."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

Ids = Mapping[str, str | int]
_ids: ContextVar[Ids] = ContextVar("about")


@contextmanager
def about(**ids: str | int) -> Iterator[None]:
    """While entered, what is done here, in tasks and threads begun here too, is about these."""
    token = _ids.set({**ids_now(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def ids_now() -> Ids:
    """Of job, part, video, as far as they are known here."""
    return _ids.get({})
