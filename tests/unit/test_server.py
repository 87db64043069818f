"""Many who come at once are let in together; a server that is told to end does so in time."""

import asyncio
import signal
import subprocess
import sys
from contextlib import ExitStack
from socket import create_connection, create_server

import pytest
from starlette.types import Receive, Scope, Send

from jobs.exits import Exit
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


# A server that answers nobody.
SILENT = """
import sys
from socket import create_server
from jobs.exits import heed_signals
from jobs.serve import server

async def app(scope, receive, send):
    if scope["type"] == "http":
        print("asked", flush=True)
        while (await receive())["type"] != "http.disconnect":
            pass
        print("gone", flush=True)

heed_signals()
server.LAST_S = 60.0  # a machine that pauses cuts nothing short
if len(sys.argv) > 1:
    server.GRACE_S = float(sys.argv[1])
with create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    server.server_of(app).run(sockets=[listener])
"""


def until_refused(port: int) -> None:
    try:
        while True:
            create_connection(("127.0.0.1", port), DEADLINE_S).close()
    except ConnectionError:  # or reset: it closes in this moment
        return


@pytest.mark.parametrize(
    ("first", "then"),
    [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, "the end of the grace")],
)
def test_a_server_told_again_or_out_of_time_hangs_up_on_all_and_ends_quietly(
    first: signal.Signals, then: signal.Signals | str
):
    grace_s = ["0"] if isinstance(then, str) else []
    with subprocess.Popen(
        [sys.executable, "-c", SILENT, *grace_s],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with create_connection(("127.0.0.1", port)) as client:
            client.sendall(REQUEST)
            assert process.stdout.readline() == "asked\n"
            process.send_signal(first)
            until_refused(port)  # it has heard
            if not isinstance(then, str):
                process.send_signal(then)
            said, trouble = process.communicate(timeout=DEADLINE_S)
    assert said == "gone\n"
    assert process.returncode == (Exit.TERMINATED if first == signal.SIGTERM else -first)
    assert "ASGI" not in trouble
    assert bool(trouble) == (first == signal.SIGINT)  # which the command line makes a line of
