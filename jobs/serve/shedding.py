"""What has no chance is refused before it costs anything: no body is parsed, no route looked up,
whatever work it asks for.

Under ten times the load the refusals alone would keep everybody waiting for seconds.
"""

import re
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.serve.admittance import Admittance
from jobs.serve.body_ids import body_id_of, id_start
from jobs.serve.refusals import Refusal

CHAT = "/v1/chat/completions"
FILES = "/v1/files"
Known = Callable[[str, str], bool]
_ASKS = re.compile(r"/v1/streams(/[^/]+/(ask|ground))?")
SMALL_BYTES = 1 << 16  # of a body whose hash costs nothing; the route looks at larger ones


class Shedding:
    """Around the app, inside the Front; the route finds in its state how to leave the door.

    is_known: whether an owner's body is being answered already; then it has that answer. may_be:
    whether one is whose id begins so.
    """

    def __init__(
        self, app: ASGIApp, admittance: Admittance, is_known: Known, may_be: Known
    ) -> None:
        self._app = app
        self._admittance = admittance
        self._is_known = is_known
        self._may_be = may_be

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        owner: str = scope["state"]["owner"]
        leave = _nowhere
        if scope["path"] == FILES:
            leave = self._admittance.bring(owner)
        elif _ASKS.fullmatch(scope["path"]):
            leave = self._admittance.knock(owner)
        elif scope["path"] == CHAT:
            try:
                leave = self._admittance.knock(owner)
            except Refusal as refusal:
                receive = await self._received_again(owner, Headers(scope=scope), receive, refusal)
        scope["state"]["leave_door"] = leave
        try:
            self._admittance.spend(owner)
            await self._app(scope, receive, send)
        finally:
            leave()

    async def _received_again(
        self, owner: str, headers: Headers, receive: Receive, refusal: Refusal
    ) -> Receive:
        """The body, of one that is known or may be: the route reads large ones."""
        length = headers.get("content-length", "")
        if not length.isdecimal():
            raise refusal
        if int(length) > SMALL_BYTES:
            if not self._may_be(owner, id_start(headers, int(length))):
                raise refusal
            return receive
        message = await receive()
        is_whole = not message.get("more_body", False)
        if is_whole and not self._is_known(owner, body_id_of(headers, message.get("body", b""))):
            raise refusal
        return _again(message, receive)


def _nowhere() -> None:
    """Leave a door where one is not."""


def _again(message: Message, receive: Receive) -> Receive:
    """The message that was taken, then those to come."""
    taken = [message]

    async def receive_again() -> Message:
        return taken.pop() if taken else await receive()

    return receive_again
