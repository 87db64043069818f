"""Decoders are forked from one process: what happens when it, or who asked for them, is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psutil
import pytest

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode, Transient
from pipeline.video.reader import open_media
from pipeline.video.sandbox import Child
from pipeline.video.source import Source, open_file
from pipeline.video.wire import FROM_START, ReadOrder, Run
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


LONG_ORDER = ReadOrder(
    reader="pyav", width=16, height=16, num_slots=2, slot_bytes=4096, num_indexed=1, threads=1,
    leaves_bits=False, may_skip=False,
)  # fmt: skip
MANY_RUNS = [Run(FROM_START, 0, tuple(range(1000)), tuple(range(1000)))] * 500  # fill any socket


def test_an_order_that_no_child_takes_is_given_up_in_time(clip: Path) -> None:
    """A zygote that is stopped has forked nobody who could read it."""
    assert outcome(clip) == ("ok", ())
    the_zygote().suspend()
    limits = DecodeLimits(stall_s=1.0)
    with (
        open_file(Source.of(clip), max_bytes=1 << 30) as file,
        closing(Child(file, limits)) as new,
        pytest.raises(Transient, match="came to life"),
    ):
        new.order(LONG_ORDER, MANY_RUNS)
    assert outcome(clip) == ("ok", ())


def test_an_order_to_a_child_that_stands_still_is_given_up_in_time(clip: Path) -> None:
    assert outcome(clip) == ("ok", ())  # the zygote has started
    limits = DecodeLimits(stall_s=3.0)
    with open_file(Source.of(clip), max_bytes=1 << 30) as file, closing(Child(file, limits)) as new:
        new.begin()
        [process] = the_zygote().children()
        process.suspend()
        with pytest.raises(BadInput) as raised:
            new.order(LONG_ORDER, MANY_RUNS)
    assert raised.value.code is FailureCode.DECODE_TIMEOUT
    _until_gone(process)


def test_a_zygote_that_stops_while_a_video_is_open_costs_one_try(tmp_path: Path) -> None:
    clip = make(tmp_path, Clip(num_frames=240, fps=12, gop=12))
    assert outcome(clip) == ("ok", ())
    with open_media(Source.of(clip), DecodeLimits(threads=2, stall_s=3.0)) as media:
        the_zygote().suspend()
        plan = make_plan(media.info, source_id="test", fps=0.5)  # jumps, by two children
        with pytest.raises(Transient):
            list(media.read(plan, plan.windows[0]))
    assert outcome(clip) == ("ok", ())


def test_the_limit_of_a_videos_time_is_for_all_its_decoders_together(clip: Path) -> None:
    with open_media(Source.of(clip)) as media:
        (first,) = media._children  # noqa: SLF001
        assert media._idle_children(2)[1]._waited is first._waited  # noqa: SLF001


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
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # one of the others has just ended
            found += [process] if any("zygote_process" in w for w in process.cmdline()) else []
    [zygote] = found
    return zygote


def _until_gone(process: psutil.Process) -> None:
    try:
        process.wait(DEADLINE_S)
    except psutil.NoSuchProcess:
        return
