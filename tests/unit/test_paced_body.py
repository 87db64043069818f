"""A body is not fetched faster than it is taken, by what really fetches it under Ray Serve."""

import asyncio
from itertools import count

from ray.serve._private.direct_ingress_http_util import ASGIDIReceiveProxy
from starlette.types import Message

from jobs.serve.paced_body import PacedBody

PIECE = bytes(1_000)
NUM_PIECES = 100
AHEAD_BYTES = 10_000


def test_a_client_that_is_quicker_than_who_takes_is_held_up_and_nothing_is_lost():
    asyncio.run(_held_up())


async def _held_up() -> None:
    numbers = count()
    num_sent = 0

    async def client() -> Message:
        nonlocal num_sent
        await asyncio.sleep(0)
        if (number := next(numbers)) == NUM_PIECES:
            return {"type": "http.disconnect"}
        num_sent += 1
        return {"type": "http.request", "body": PIECE, "more_body": number + 1 < NUM_PIECES}

    proxy = ASGIDIReceiveProxy({"type": "http"}, client, asyncio.get_running_loop())
    body = PacedBody(proxy, ahead_bytes=AHEAD_BYTES)
    fetching = proxy.fetch_until_disconnect_task()
    for num_taken in range(1, NUM_PIECES + 1):
        assert (await body())["body"] == PIECE
        for _ in range(100):  # whatever it would fetch meanwhile
            await asyncio.sleep(0)
        assert num_sent <= num_taken + AHEAD_BYTES / len(PIECE) + 1
    assert num_sent == NUM_PIECES
    assert (await body())["type"] == "http.disconnect"
    await fetching


def test_what_a_server_of_its_own_hands_over_stays_as_it_is():
    async def client() -> Message:
        return {"type": "http.request", "body": PIECE, "more_body": False}

    assert asyncio.run(PacedBody(client)())["body"] == PIECE
