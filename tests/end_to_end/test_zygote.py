"""Decoders are forked from one process: what happens when it, or who asked for them, is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from pipeline.config import DecodeLimits
from pipeline.errors import Transient
from pipeline.video.reader import open_media
from pipeline.video.source import Source
from pipeline.video.zygote import stop_zygote
from tests.hostile import outcome
from tests.media_factory import Clip, make
from tests.plans import make_plan

DEADLINE_S = 60.0
HOLD = """
import sys
from pathlib import Path
from tests.plans import make_plan
from pipeline.video.reader import open_media
from pipeline.video.source import Source
with open_media(Source.of(Path(sys.argv[1]))):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make(tmp_path, Clip(num_frames=12))


@pytest.fixture(autouse=True)
def _another_zygote_for_each() -> Iterator[None]:
    stop_zygote()
    yield
    stop_zygote()


def test_two_videos_are_decoded_by_two_children_of_one_zygote(clip: Path) -> None:
    with open_media(Source.of(clip)), open_media(Source.of(clip)):
        zygote = the_zygote()
        assert len(zygote.children()) == 2
    assert zygote.is_running()
    assert not zygote.children()


def test_a_younger_video_is_decoded_with_what_the_older_one_leaves(clip: Path) -> None:
    back = DecodeLimits(niceness=10)
    with open_media(Source.of(clip)), open_media(Source.of(clip), back) as younger:
        plain, nice = sorted(child.nice() for child in the_zygote().children())
        assert nice == min(plain + 5, 19)
        plan = make_plan(younger.info, source_id="test", fps=2)
        assert len(list(younger.read(plan, plan.windows[0]))) > 0


def test_jumps_are_shared_by_as_many_children_as_there_may_be_threads(tmp_path: Path) -> None:
    clip = make(tmp_path, Clip(num_frames=240, fps=12, gop=12))
    with open_media(Source.of(clip), DecodeLimits(threads=2)) as media:
        sparse = make_plan(media.info, source_id="test", fps=0.5)
        chunks = media.read(sparse, sparse.windows[0])
        next(chunks)
        assert len(the_zygote().children()) == 2
        chunks.close()
        dense = make_plan(media.info, source_id="test", fps=12)
        chunks = media.read(dense, dense.windows[0])
        next(chunks)
        assert len(the_zygote().children()) == 1


def test_a_lost_zygote_takes_its_children_along_and_is_replaced(clip: Path) -> None:
    with pytest.raises(Transient), open_media(Source.of(clip)) as media:  # noqa: PT012
        zygote = the_zygote()
        [child] = zygote.children()
        zygote.kill()
        zygote.wait(DEADLINE_S)
        _until_gone(child)
        media._probe()  # noqa: SLF001
    assert outcome(clip) == ("ok", ())
    other = the_zygote()
    assert other.pid != zygote.pid


@pytest.mark.parametrize("told_to_all", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_process_group_leaves_decoding_to_the_parent(
    clip: Path, told_to_all: signal.Signals
) -> None:
    with open_media(Source.of(clip)) as media:
        zygote = the_zygote()
        [child] = zygote.children()
        child.send_signal(told_to_all)
        zygote.send_signal(told_to_all)
        plan = make_plan(media.info, source_id="it")
        assert sum(len(chunk.frames) for chunk in media.read(plan, plan.windows[0]))
        assert [zygote, child] == [the_zygote(), *zygote.children()]


def test_a_child_that_dies_while_it_is_given_up_costs_nobody_else(clip: Path) -> None:
    with open_media(Source.of(clip)) as other, ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        zygote = the_zygote()
        before = set(zygote.children())
        stack.enter_context(open_media(Source.of(clip)))
        [child] = set(zygote.children()) - before
        zygote.suspend()
        child.kill()
        given_up = pool.submit(stack.close)
        zygote.resume()  # it hears of both at once, or one after the other
        given_up.result(DEADLINE_S)
        plan = make_plan(other.info, source_id="other")
        assert sum(len(chunk.frames) for chunk in other.read(plan, plan.windows[0])) > 0
    assert the_zygote() == zygote


def test_a_zygote_that_hangs_is_replaced_and_the_video_may_be_tried_again(clip: Path) -> None:
    assert outcome(clip) == ("ok", ())
    zygote = the_zygote()
    zygote.suspend()
    with pytest.raises(Transient, match="came to life"):
        outcome(clip, DecodeLimits(stall_s=1.0))
    assert not zygote.is_running()
    assert outcome(clip) == ("ok", ())


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
def test_children_end_with_whoever_asked_for_them(clip: Path, is_stopped: bool) -> None:
    command = [sys.executable, "-c", HOLD, str(clip)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asker:
        assert asker.stdout is not None
        assert asker.stdout.readline() == b"open\n"
        family = psutil.Process(asker.pid).children(recursive=True)
        assert len(family) == 2
        if is_stopped:
            family[-1].suspend()
        asker.send_signal(signal.SIGKILL)
    for process in family:
        _until_gone(process)


def test_a_child_has_no_network(clip: Path) -> None:
    with open_media(Source.of(clip)):
        zygote = the_zygote()
        [child] = zygote.children()
        own, theirs = (os.readlink(f"/proc/{pid}/ns/net") for pid in ("self", child.pid))
        if own == theirs:
            pytest.skip("this machine lets nobody leave its network")
        devices = Path(f"/proc/{child.pid}/net/dev").read_text().split()
        assert [word for word in devices if word.endswith(":")] == ["lo:"]


def test_a_child_holds_only_its_file_its_channel_and_its_frames(clip: Path) -> None:
    with open_media(Source.of(clip)), open_media(Source.of(clip)):
        zygote = the_zygote()
        for child in zygote.children():
            folder = f"/proc/{child.pid}/fd"
            held = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]
            kinds = sorted(name.split(":")[0] for name in held if name != "/dev/null")
            assert kinds == sorted([str(clip), "/memfd", "socket"])


def the_zygote() -> psutil.Process:
    """This process's only child of that name; other tests' servers may be its children too."""
    [found] = [
        process
        for process in psutil.Process().children()
        if any("zygote_process" in word for word in process.cmdline())
    ]
    return found


def _until_gone(process: psutil.Process) -> None:
    try:
        process.wait(DEADLINE_S)
    except psutil.NoSuchProcess:
        return
