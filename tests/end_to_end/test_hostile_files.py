"""Bad files end in a result or a coded failure, soon, and nobody else notices."""

import http.server
import os
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.config import MIB, DecodeLimits
from pipeline.errors import BadInput, FailureCode
from pipeline.video import zygote
from pipeline.video.reader import open_media
from pipeline.video.source import Source, identity
from tests.hostile import CASES, Case, outcome
from tests.media_factory import Clip, ffmpeg, make
from tests.plans import make_plan

GRACE_S = 20.0  # on a busy machine; a child starts in 0.15 s on an idle one


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """No child, no descriptor and no temporary memory outlives the reading of a file."""
    zygote.stop_zygote()
    processes, files = set(psutil.Process().children()), os.listdir("/proc/self/fd")
    yield
    assert not [one for child in _new(processes) for one in child.children()]
    zygote.stop_zygote()
    assert not _new(processes)
    assert len(os.listdir("/proc/self/fd")) <= len(files)


def _new(before: set[psutil.Process]) -> set[psutil.Process]:
    """This process's children that were not there before: a cluster of other tests' may be."""
    return set(psutil.Process().children()) - before


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_bad_file_has_its_outcome_and_its_neighbours_do_not_notice(
    case: Case, tmp_path: Path
) -> None:
    path = case.build(tmp_path)
    good = make(tmp_path, Clip(num_frames=6), "neighbour")
    started = time.monotonic()
    code, flags = outcome(path, DecodeLimits(max_pixels=case.max_pixels))
    assert code == case.outcome
    assert case.flag is None or case.flag in flags
    assert time.monotonic() - started < GRACE_S
    assert outcome(good) == ("ok", ())


# A secret lies beside the file and a server listens: neither is ever touched.


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    hits: list[str] = []

    class Canary(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            hits.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            return

    secret = make(tmp_path, Clip(num_frames=6), "secret")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Canary) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{secret.name}", hits
        server.shutdown()
        thread.join()


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{target}'\n"
DASH = '<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{target}</BaseURL></Period></MPD>'
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na={target}\n"
STRM = "{target}\n"


@pytest.mark.parametrize("text", [HLS, CONCAT, DASH, SDP, STRM], ids=lambda text: text[:8].strip())
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.mpd"])
def test_a_file_that_points_elsewhere_makes_nobody_look_there(
    tmp_path: Path, canary: tuple[str, list[str]], text: str, name: str
) -> None:
    url, hits = canary
    for target in (url, "secret.mp4", (tmp_path / "secret.mp4").as_uri()):
        path = tmp_path / name
        path.write_text(text.format(target=target))
        assert outcome(path) == ("not_a_video", ())
    assert hits == []


def test_a_movie_whose_data_lie_in_another_file_does_not_open_it(
    tmp_path: Path, canary: tuple[str, list[str]]
) -> None:
    url, hits = canary
    data = make(tmp_path, Clip(num_frames=12, suffix=".mov")).read_bytes()
    inner = b"url " + bytes(4)  # flags 0: not in this file
    body = inner + url.encode() + b"\0"
    at = data.index(b"url ", data.index(b"dref"))
    # The box keeps its place: the reference takes over the bytes behind it.
    path = tmp_path / "reference.mov"
    path.write_bytes(data[:at] + body + data[at + len(body) :])
    code, _ = outcome(path)
    assert code in set(FailureCode)
    assert hits == []


NAMES = [
    *("concat:a|b.mp4", "subfile,,start,0,end,0,,:a.mp4", "-i.mp4", "file:a.mp4", "pipe:0.mp4"),
    *("http:a.mp4", "%2e%2e.mp4", "x\n.mp4", "\u202egpm.mp4", "\U0001f3ac.mp4", "a" * 240 + ".mp4"),
    *(unicodedata.normalize(form, "caf\u00e9.mp4") for form in ("NFC", "NFD")),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    make(tmp_path, Clip(num_frames=6)).rename(path)
    assert outcome(path) == ("ok", ())


@pytest.mark.parametrize("name", ["", "no.mp4", "no/no.mp4", "a\0.mp4", "http://127.0.0.1/a.mp4"])
def test_a_name_without_a_file_is_a_coded_failure(tmp_path: Path, name: str) -> None:
    assert outcome(tmp_path / name)[0] in ("not_found", "not_a_regular_file")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "fifo.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "folder.mp4").mkdir()
    odd = ("fifo.mp4", "link.mp4", "loop.mp4", "folder.mp4", "/dev/zero", "/dev/null")
    for path in odd:
        assert outcome(tmp_path / path)[0] == "not_a_regular_file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_forbidden(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(num_frames=6))
    path.chmod(0)
    assert outcome(path)[0] == "forbidden"


def test_too_large_a_file_is_not_opened(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(num_frames=6))
    assert outcome(path, DecodeLimits(max_bytes=100))[0] == "too_many_bytes"


def test_more_frames_than_allowed_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(num_frames=12))
    assert outcome(path, DecodeLimits(max_packets=11))[0] == "too_many_frames"
    assert outcome(path, DecodeLimits(max_packets=12))[0] == "ok"


def test_a_file_that_changes_while_it_is_read_is_reported(tmp_path: Path) -> None:
    path = make(tmp_path, Clip(num_frames=24))
    with open_media(Source.of(path)) as media:
        plan = make_plan(media.info, source_id="test")
        chunks = media.read(plan, plan.windows[0])
        next(chunks)
        os.utime(path, (0, 0))
        with pytest.raises(BadInput) as raised:
            list(chunks)
    assert raised.value.code is FailureCode.SOURCE_CHANGED


def test_equal_bytes_have_equal_identity_and_an_etag_comes_first(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    assert identity(Source.of(one)) == identity(Source.of(two))
    assert identity(Source(uri="s3://x", path=one, etag='"e"')) == '"e"'


# The decoding process itself misbehaves: a program of our own in its place, on a good file.

MISBEHAVE = """
import sys
split = sys.argv.index("--")
sys.path[:0] = sys.argv[1:split]
import os, time, signal
from pipeline.video import child, wire, zygote_process
from pipeline.video.ffmpeg import video_file
{fault}
sys.exit(zygote_process.main(int(sys.argv[split + 1])))
"""
FAULTS = {
    "segfault": (
        "video_file.VideoFile.scan = lambda self: os.kill(os.getpid(), signal.SIGSEGV)",
        "decoder_crash",
    ),
    "abort": ("video_file.VideoFile.scan = lambda self: os.abort()", "decoder_crash"),
    "killed": (
        "video_file.VideoFile.scan = lambda self: os.kill(os.getpid(), signal.SIGKILL)",
        "decode_memory",
    ),
    "memory": ("video_file.VideoFile.scan = lambda self: bytearray(8 << 30)", "decode_memory"),
    "hang": ("video_file.VideoFile.scan = lambda self: time.sleep(1000)", "decode_timeout"),
    "busy": (
        "def scan(self):\n    while True: pass\nvideo_file.VideoFile.scan = scan",
        "decode_timeout",
    ),
    "exit": ("video_file.VideoFile.scan = lambda self: os._exit(7)", "decoder_crash"),
    "write": (
        "video_file.VideoFile.scan = lambda self: open({folder!r} + '/w', 'wb', 0).write(b'x')",
        "decoder_crash",
    ),
    "bug": ("video_file.VideoFile.scan = lambda self: 1 / 0", "decoder_crash"),
    "no header": ("child.to_json = lambda value: b''", "decoder_protocol"),
    "garbage": (
        "def serve(channel, *rest):\n"
        "    channel.send(os.urandom(4096))\n"
        "    time.sleep(1000)\n"
        "child._serve = serve",
        "decoder_protocol",
    ),
    "huge count": (
        "import dataclasses\nscan = video_file.VideoFile.scan\n"
        "def lie(self):\n"
        "    header, stamps, marks = scan(self)\n"
        "    return dataclasses.replace(header, num_packets=1 << 50), stamps, marks\n"
        "video_file.VideoFile.scan = lie",
        "decoder_protocol",
    ),
    "slot out of range": (
        "child.pack_note = lambda note: wire.pack_note("
        "wire.FrameNote(note.index, 1 << 30, note.stride))",
        "decoder_protocol",
    ),
    "stride out of range": (
        "child.pack_note = lambda note: wire.pack_note("
        "wire.FrameNote(note.index, note.slot, 1 << 30))",
        "decoder_protocol",
    ),
    "shrunk memory": (
        "child._serve = (lambda serve: lambda channel, ring, *rest:"
        " serve(channel, ring if shrunk(ring) else 0, *rest))(child._serve)\n"
        "def shrunk(ring):\n"
        "    try: os.ftruncate(ring, 0)\n"
        "    except PermissionError: pass\n"  # where there is seccomp
        "    return True",
        "ok",  # it is given its size, and sealed, after that
    ),
}


@contextmanager
def misbehaving(monkeypatch: pytest.MonkeyPatch, fault: str) -> Iterator[None]:
    """Every child started meanwhile has the fault."""
    with monkeypatch.context() as patched:
        patched.setattr(zygote, "PROGRAM", MISBEHAVE.format(fault=fault))
        zygote.stop_zygote()
        yield
    zygote.stop_zygote()


@pytest.mark.parametrize(("fault", "code"), FAULTS.values(), ids=FAULTS)
def test_a_decoder_gone_wrong_is_a_coded_failure_of_its_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: str
) -> None:
    path = make(tmp_path, Clip(num_frames=12))
    limits = DecodeLimits(stall_s=5.0, memory_bytes=2048 * MIB)
    with misbehaving(monkeypatch, fault.replace("{folder!r}", repr(str(tmp_path)))):
        assert outcome(path, limits)[0] == code
    assert outcome(path) == ("ok", ())
    assert not (written := tmp_path / "w").exists() or written.stat().st_size == 0


def test_a_decoder_that_crashes_once_is_replaced_and_no_frame_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, Clip(num_frames=24))
    fault = (
        "births, fork, rgb = [], os.fork, video_file.VideoFile.rgb\n"
        "def counted():\n"
        "    births.append(1)\n"
        "    return fork()\n"
        "def once(self, *a, **k):\n"
        "    if len(births) == 1: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return rgb(self, *a, **k)\n"
        "os.fork, video_file.VideoFile.rgb = counted, once"
    )
    with misbehaving(monkeypatch, fault), open_media(Source.of(path)) as media:
        plan = make_plan(media.info, source_id="test")
        first = media._children[0]  # noqa: SLF001
        assert sum(len(chunk.frames) for chunk in media.read(plan, plan.windows[0])) > 0
        assert first not in media._children  # noqa: SLF001


def test_the_wall_clock_stops_what_the_frame_limit_would_have_let_through(tmp_path: Path) -> None:
    many = tmp_path / "many.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "color=size=16x16:rate=1000:duration=100", "-c:v", "libx264",
        "-preset", "ultrafast", "-g", "100000", "-threads", "1", str(many),
    )  # fmt: skip
    assert outcome(many) == ("ok", ())
    started = time.monotonic()
    assert outcome(many, DecodeLimits(wall_s=0.5)) == ("decode_timeout", ())
    assert time.monotonic() - started < GRACE_S


def test_ten_hours_are_read_by_jumping(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "color=size=16x16:rate=1:duration=36000", "-c:v", "libx264",
        "-preset", "ultrafast", "-g", "60", "-threads", "1", str(path),
    )  # fmt: skip
    started = time.monotonic()
    assert outcome(path) == ("ok", ())
    assert time.monotonic() - started < GRACE_S
