"""Many who come at once are let in together."""

import asyncio
from contextlib import ExitStack
from socket import create_connection, create_server

from starlette.types import Receive, Scope, Send

from jobs.serve.server import server_of

NUM_CLIENTS = 96
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
DEADLINE_S = 60.0


def test_those_who_come_at_once_do_not_wait_a_turn_of_the_loop_for_each_other():
    turn, came_in = 0, list[int]()
    all_came = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        came_in.append(turn)
        if len(came_in) == NUM_CLIENTS:
            all_came.set()
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def work() -> None:
        server = server_of(app)
        counting = asyncio.create_task(count_turns())
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await all_came.wait()
        server.should_exit = True
        await serving
        counting.cancel()

    with create_server(("127.0.0.1", 0), backlog=NUM_CLIENTS) as listener, ExitStack() as stack:
        for _ in range(NUM_CLIENTS):
            client = stack.enter_context(create_connection(listener.getsockname()))
            client.sendall(REQUEST)
        loop_factory = server_of(app).config.get_loop_factory()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(work(), DEADLINE_S))
    assert max(came_in) - min(came_in) < NUM_CLIENTS / 2
