"""Whatever a fleet is asked, a call that gets lost is made again: no command ends for one."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from actors import calls, fleet
from actors.fleet import Fleet
from actors.pools import Pools
from actors.profile import Profile
from pipeline.errors import Transient
from pipeline.tasks.tasks import Tasks
from pipeline.video.confinement import MEASURES
from pipeline.video.source import Source

LOST = ActorUnavailableError("its answer was lost", None)
TIMEOUT_S = 60.0
SOURCE = Source(uri="it", path=Path("it"))


class Reference:
    """What a call returns: an answer, or that it was lost."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def future(self) -> "Future[Any]":
        future: Future[Any] = Future()
        if isinstance(self._answer, Exception):
            future.set_exception(self._answer)
        else:
            future.set_result(self._answer)
        return future

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self.future()).__await__()


class Actor:
    """Answers as told, method by method; the first call of each is lost."""

    def __init__(self, **answers: Any) -> None:
        self._answers = {"process_id": 1, "ready": None} | answers
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return type("Method", (), {"remote": lambda _, *call: self._call(name)})()

    def _call(self, name: str) -> Reference:
        is_lost = name not in self.calls
        self.calls.append(name)
        return Reference(LOST if is_lost else self._answers[name])


async def _sandbox(it: Fleet) -> object:
    return await it.sandbox()


async def _refused(it: Fleet) -> object:
    """A video whose attempts all fail while another gets through."""

    async def fails() -> object:
        it._num_done += 1
        raise Transient("an actor died")

    attempt = it.attempt

    async def attempted(run: Callable[[], Awaitable[Any]]) -> Any:
        return await (attempt(fails) if run.__name__ == "run" else attempt(run))

    it.attempt = attempted  # type: ignore[method-assign]
    return await it.analyse(SOURCE, Tasks(), video_id="it")


@pytest.mark.parametrize(
    ("asked", "role", "method", "answer"),
    [
        (_sandbox, "reader", "sandbox", MEASURES),
        (_refused, "host", "refusal", "the record of a refusal"),
    ],
)
def test_a_call_that_gets_lost_is_made_again(
    asked: Callable[[Fleet], Awaitable[Any]],
    role: str,
    method: str,
    answer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (calls, fleet):
        monkeypatch.setattr(module, "life_of", lambda _: 0)
    reader, host = Actor(sandbox=MEASURES), Actor(refusal=answer)
    pools: Any = Pools(readers=(reader,), encoders=(Actor(),), decoders=(Actor(),))
    it = Fleet(pools, (host,), Profile())  # type: ignore[arg-type]
    assert asyncio.run(asyncio.wait_for(asked(it), TIMEOUT_S)) == answer
    assert {"reader": reader, "host": host}[role].calls.count(method) == 2


def test_a_cluster_that_tells_nothing_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has been seen never to answer while it ends; Python would wait for the thread."""
    asked, answers = threading.Event(), threading.Event()

    def hangs(_: object) -> None:
        asked.set()
        answers.wait(TIMEOUT_S)

    monkeypatch.setattr(calls, "life_of", hangs)
    monkeypatch.setattr(fleet, "life_of", hangs)
    it = Fleet(Pools(readers=(Actor(),), encoders=(), decoders=()), (), Profile())  # type: ignore[arg-type]

    async def give_up() -> None:
        for waits in (it.missing(), calls.recover(Actor(), patience_s=1.0)):  # type: ignore[arg-type]
            asked.clear()
            looking = asyncio.ensure_future(waits)
            while not asked.is_set():
                await asyncio.sleep(0)
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    try:
        ends = threading.Thread(target=asyncio.run, args=(give_up(),), daemon=True)
        ends.start()
        ends.join(TIMEOUT_S / 2)
        assert not ends.is_alive()
    finally:
        answers.set()
