"""Files that clients send: bytes that several have sent lie there once; a bad file is nobody's."""

import asyncio
import json
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from jobs.serve.refusals import Refusal
from jobs.serve.sweeping import keep_sweeping
from jobs.serve.uploads import Upload, Uploads
from pipeline.config import DecodeLimits
from tests.media_factory import Clip, make

MOMENT_S = 0.2  # that a removal may take where nothing holds it up

pytestmark = pytest.mark.timeout(60)


async def sent(uploads: Uploads, clip: Path, *, owner: str) -> Upload:
    file = uploads.incoming()
    await file.write(clip.read_bytes())
    return await uploads.keep(file, owner=owner, filename="clip.mp4", purpose="user_data")


def test_bytes_that_somebody_sends_are_not_removed_with_anothers_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clip = make(tmp_path, Clip())
    uploads = Uploads(tmp_path / "data", max_bytes=1 << 20, keep_s=60.0, limits=DecodeLimits())
    before = asyncio.run(sent(uploads, clip, owner="one"))
    removing: list[Future[None]] = []
    replace = Path.replace
    with ThreadPoolExecutor(1) as beside:

        def remove_and_replace(path: Path, target: Path) -> Path:
            if target.parent.name == "files":
                removing.append(beside.submit(uploads.remove, before))
                wait(removing, MOMENT_S)
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", remove_and_replace)
        now = asyncio.run(sent(uploads, clip, owner="another"))
        removing[0].result()
    assert uploads.all_of("one") == []
    assert uploads.all_of("another") == [now]
    assert uploads.path(now).read_bytes() == clip.read_bytes()


DAMAGES: dict[str, bytes | None] = {
    "empty": b"",
    "cut": b'{"id": "file-000000000000000000000000", "owner": "one"',
    "no object": b"[1, 2]",
    "other fields": json.dumps({"id": "file-000000000000000000000000", "size": 3}).encode(),
    "other types": json.dumps({**dict.fromkeys(Upload.__slots__), "owner": "one"}).encode(),
    "no text": b"\xff\xfe\x00",
    "a folder": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_says_nothing_of_an_upload_holds_up_no_other(tmp_path: Path, damage: str):
    clip = make(tmp_path, Clip())
    data = tmp_path / "data"
    uploads = Uploads(data, max_bytes=1 << 20, keep_s=60.0, limits=DecodeLimits())
    bad = data / "files" / f"file-{'0' * 24}"
    content = DAMAGES[damage]
    if content is None:
        bad.mkdir()
    else:
        bad.write_bytes(content)
    first = asyncio.run(sent(uploads, clip, owner="one"))
    assert uploads.all_of("one") == [first]
    with pytest.raises(Refusal, match="no such file"):
        uploads.get(bad.name, owner="one")
    uploads.remove(first)
    assert not uploads.path(first).exists()
    passing = Uploads(data, max_bytes=1 << 20, keep_s=0.0, limits=DecodeLimits())
    gone = asyncio.run(sent(passing, clip, owner="one"))
    passing.sweep()
    assert not uploads.path(gone).exists()


def test_sweeping_goes_on_after_any_error_and_says_so(caplog: pytest.LogCaptureFixture):
    swept: list[str] = []

    async def sweep_until_twice() -> None:
        is_enough = asyncio.Event()

        async def broken() -> None:
            swept.append("broken")
            raise KeyError("what nobody thought of")

        async def sound() -> None:
            swept.append("sound")
            if len(swept) == 4:
                is_enough.set()
                await asyncio.Future()

        sweeping = asyncio.create_task(keep_sweeping(broken, sound, pause_s=0.0))
        await is_enough.wait()
        sweeping.cancel()
        await asyncio.wait({sweeping})
        assert sweeping.cancelled()

    asyncio.run(sweep_until_twice())
    assert swept == ["broken", "sound"] * 2
    assert "what nobody thought of" in caplog.text
