"""An actor that looks for its stream host ends when it is told to, whatever Ray does meanwhile."""

import asyncio
import threading

import pytest

from actors.host_watch import until_gone

pytestmark = pytest.mark.timeout(30)


def test_a_look_that_ray_never_answers_holds_up_no_end(monkeypatch: pytest.MonkeyPatch):
    is_asked, goes_on = threading.Event(), threading.Event()
    looking: list[threading.Thread] = []

    def never_found(name: str, *, namespace: str) -> None:
        looking.append(threading.current_thread())
        is_asked.set()
        goes_on.wait()
        raise ValueError(name)

    async def work() -> None:
        watching = asyncio.create_task(until_gone("fleet/host"))
        await asyncio.to_thread(is_asked.wait)
        watching.cancel()
        await asyncio.wait({watching})

    monkeypatch.setattr("actors.host_watch.ray.is_initialized", lambda: True)
    monkeypatch.setattr("actors.host_watch.ray.get_actor", never_found)
    try:
        asyncio.run(work())  # waits for the threads of its own
        (thread,) = looking
        assert thread.is_alive()
        assert thread.daemon  # Python's end does not wait for it either
    finally:
        goes_on.set()
