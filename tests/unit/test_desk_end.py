"""A desk that ends leaves nothing open, whatever was under way."""

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path

import httpx2
import pytest

from actors.fleet_session import FleetSession
from jobs.serve.stream_file import StreamFile
from tests.endpoint import tiny_app
from tests.media_factory import Clip, make
from tests.sessions import run, until

TIMEOUT_S = 60.0


class Held:
    """The opening of a stream, which comes this far and goes on when it is let."""

    def __init__(self, where: str, patch: pytest.MonkeyPatch) -> None:
        self.is_reached = threading.Event()
        self.goes_on = threading.Event()
        open_session, replace = FleetSession.open, StreamFile.replace

        async def open_and_wait(session: FleetSession) -> None:
            await open_session(session)
            self.is_reached.set()
            await until(self.goes_on.is_set)

        def wait_and_replace(file: StreamFile, lines: Iterable[bytes]) -> None:
            self.is_reached.set()
            assert self.goes_on.wait(TIMEOUT_S)
            replace(file, lines)

        if where == "its video is open":
            patch.setattr(FleetSession, "open", open_and_wait)
        else:
            patch.setattr(StreamFile, "replace", wait_and_replace)


@pytest.mark.parametrize("where", ["its video is open", "its file is being written"])
def test_a_stream_that_is_being_opened_is_closed(
    where: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make(tmp_path, Clip(num_frames=4))
    held = Held(where, monkeypatch)

    async def work() -> None:
        life = app.router.lifespan_context(app)
        await life.__aenter__()
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as web:
            form = {"files": {"file": clip.read_bytes()}, "data": {"purpose": "user_data"}}
            sent = (await web.post("/v1/files", **form)).json()
            source = {"source": {"file_id": sent["id"]}}
            asking = asyncio.ensure_future(web.post("/v1/streams", json=source))
            await until(held.is_reached.is_set)
            asking.cancel()  # as by a client that leaves
            await asyncio.wait({asking})
            ending = asyncio.ensure_future(life.__aexit__(None, None, None))
            opening = desk.streams._opening
            await until(lambda: all(each.cancelling() for each in opening.values()))
            held.goes_on.set()
            await ending
        sessions = desk.videos.session.__self__._sessions
        assert (desk.streams.all, sessions.num_open) == ([], 0)

    with tiny_app(model, tmp_path / "data") as app:
        desk = app.state.desk
        run(work())
    assert [*(tmp_path / "data" / "streams").iterdir()] == []
