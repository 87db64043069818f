"""`vidray analyze` as people run it: a process, a terminal or a pipe, an exit code."""

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline.errors import FailureCode
from pipeline.tasks.records import from_json
from tests.media_factory import Clip, make
from tests.readers import NEEDS_DECORD
from tests.tiny_folder import write_folder

VIDRAY = Path(sys.executable).with_name("vidray")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "TERM": "xterm-256color"}
IN_PROCESS, OVER_RAY = ("--in-process",), ()  # Ray takes seconds to start: where it is the point
DEADLINE_S = 180


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make(tmp_path_factory.mktemp("clips"), Clip(num_frames=36, fps=12))


def command(model, *arguments, where=IN_PROCESS):
    return [str(VIDRAY), "analyze", "--model", str(model), *where, *map(str, arguments)]


def run(model, *arguments, where=IN_PROCESS):
    return subprocess.run(
        command(model, *arguments, where=where),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def run_on_a_terminal(model, *arguments):
    """Exit code and everything a terminal was sent."""
    screen, far_end = pty.openpty()
    process = subprocess.Popen(
        command(model, *arguments), env=ENVIRONMENT, stdout=far_end, stderr=far_end
    )
    os.close(far_end)
    sent = bytearray()
    with suppress(OSError):  # EIO: the other end was closed
        while block := os.read(screen, 65_536):
            sent += block
    os.close(screen)
    return process.wait(DEADLINE_S), sent.decode(errors="replace")


def test_a_profiles_limit_holds_over_ray_and_a_lower_one_of_the_command_wins(model, clip, tmp_path):
    profile = tmp_path / "small.yaml"
    profile.write_text("limits: {max_pixels: 100}")
    done = run(model, clip, "--json", where=("--profile", str(profile)))
    assert done.returncode == 3, done.stderr
    record = from_json(done.stdout)
    assert record.code is FailureCode.TOO_MANY_PIXELS
    assert "100" in record.detail
    done = run(model, clip, "--json", "--limits-max-bytes", 7, where=("--profile", str(profile)))
    assert from_json(done.stdout).code is FailureCode.TOO_MANY_BYTES


def test_json_is_one_record_per_line_and_nothing_else(model, clip, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video " * 100)
    missing = tmp_path / "missing.mp4"
    done = run(
        model, clip, missing, text, clip, "--json",
        "--ask", "Which?", "--choices", "red,blue",
        "--ground", "the dog", "--at", "0.5", "--at", "2",
        "--max-new-tokens", "6", "--fps", "4",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    first, gone, bad, last = map(from_json, done.stdout.splitlines())
    assert (gone.code, bad.code) == (FailureCode.NOT_FOUND, FailureCode.NOT_A_VIDEO)
    assert (first.status, first.plan.num_frames) == ("ok", 12)
    assert first.answers[0].answer in ("red", "blue")
    assert {box.time_s for box in first.boxes} == {0.5, 2.0}
    assert (first.answers, first.boxes) == (last.answers, last.boxes)
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "not_found" in done.stderr


@NEEDS_DECORD
def test_both_readers_give_the_same_words(model, clip):
    said = [
        run(model, clip, "--max-new-tokens", "6", "--reader", reader)
        for reader in ("pyav", "decord")
    ]
    assert [done.returncode for done in said] == [0, 0]
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.startswith(f"{clip}: caption: ")


def test_long_windows_and_a_range_reach_the_plan(model, clip):
    done = run(
        model, clip, "--json", "--no-caption", "--ask", "Why?", "--max-new-tokens", "3",
        "--long", "windows", "--start", "1", "--end", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = from_json(done.stdout)
    assert record.captions == ()
    assert (record.answers[0].start_s, record.answers[0].end_s) == (1.0, 2.0)


def test_the_int8_mode_is_named_in_the_row(model, clip):
    done = run(model, clip, "--json", "--int8", "--max-new-tokens", "3")
    assert done.returncode == 0, done.stderr
    assert from_json(done.stdout).provenance.model.endswith(" (int8)")


def test_a_temperature_needs_a_seed_to_repeat_itself(model, clip):
    hot = ["--temperature", "1.5", "--max-new-tokens", "12"]
    said = [run(model, clip, *hot, "--seed", seed).stdout for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


def test_a_terminal_shows_stages_moving_words_growing_and_a_table(model, clip):
    code, screen = run_on_a_terminal(
        model, clip, "--ask", "Why?", "--max-new-tokens", "1500", "--fps", "12"
    )
    assert code == 0
    for stage in ("read", "encode", "prefill"):
        seen = {int(done) for done in re.findall(rf"{stage} \S* *(\d+)/18", plain(screen))}
        assert seen, stage
        assert max(seen) == 18
    words = [line for line in plain(screen).splitlines() if line.startswith("  Why? ")]
    assert len(set(words)) > 1  # more of them each time the screen is drawn
    assert re.search(r"│ clip\.mp4 +│ caption +│", plain(screen))
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")  # the cursor is back


def plain(screen):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r", "")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """Many chunks for a model that takes pictures of any size: decoding goes on for a while."""
    size = {"width": 480, "height": 272}
    return make(tmp_path_factory.mktemp("clips"), Clip(num_frames=400, fps=4, **size))


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_stopped_while_it_reads_leaves_no_process(tmp_path, long_clip, stop, code):
    model = write_folder(tmp_path / "model", max_pixels=None)
    # The last window is read when the first one's words are written, which takes a minute.
    process = _started(
        model, long_clip, "--fps", "4", "--long", "windows", "--max-new-tokens", "30000"
    )
    try:
        family = _family(process.pid)
        assert len(family) >= 2  # the zygote and its child
        process.send_signal(stop)
        _, rest = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert (process.returncode, rest) == (code, "vidray: stopped\n" if code == 130 else "")
    assert not psutil.wait_procs(family, timeout=DEADLINE_S)[1]


def test_a_run_stopped_while_it_writes_ends_before_the_answer_does(model, clip):
    process = _started(model, clip, "--max-new-tokens", "30000")
    try:
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert (process.returncode, out, rest) == (130, "", "vidray: stopped\n")


def _started(model, *arguments):
    """A run whose clip is planned: the decoding child is there, the model about to work."""
    process = subprocess.Popen(
        command(model, *arguments),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stderr.readline()
    assert "tokens" in line, line
    return process


def _family(pid):
    return psutil.Process(pid).children(recursive=True)


def _name(process):
    """None of one that ends meanwhile, as Ray's helpers do."""
    with suppress(psutil.NoSuchProcess):
        return process.name()


SAME_EVERYWHERE = (
    "--ask", "Which?", "--choices", "red,blue", "--ground", "the dog", "--at", "0.5", "--at", "2",
    "--max-new-tokens", "6", "--fps", "4", "--long", "windows", "--json",
)  # fmt: skip


@pytest.mark.timeout(300)
def test_ray_and_one_process_write_the_same_records(model, clip, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video " * 100)
    near, far = (
        run(model, clip, text, clip, *SAME_EVERYWHERE, where=where)
        for where in (IN_PROCESS, OVER_RAY)
    )
    assert (near.returncode, far.returncode) == (3, 3), far.stderr
    assert without_timings(far.stdout) == without_timings(near.stdout)
    assert far.stdout.count('"status":"ok"') == 2
    assert seconds_as_s(far.stderr) == seconds_as_s(near.stderr)  # Ray has nothing to add


def without_timings(lines):
    return re.sub(r'"timings":{[^}]*}', "", lines)


def seconds_as_s(text):
    return re.sub(r"(?<=done in ).*", "", text)


@pytest.mark.timeout(300)
def test_ctrl_c_over_ray_ends_quickly_and_leaves_no_process(model, clip):
    process, screen = _started_on_a_terminal(
        model, clip, "--ask", "Why?", "--max-new-tokens", "30000", "--fps", "12"
    )
    try:
        # Its words, and later on more of them.
        shown = _read_until(screen, r"  (Why\? .*)\n(?:.*\n)*?  (?!\1\n)Why\? .*\n")
        family = _family(process.pid)
        os.write(screen, b"\x03")  # to every process of the terminal, as a keyboard does
        shown += _read_until(screen, r"vidray: stopped")
        assert process.wait(DEADLINE_S) == 130
    finally:
        process.kill()
        os.close(screen)
    for waited_for in ("starting Ray", "waiting for", "read", "encode", "prefill"):
        assert waited_for in shown
    assert len(set(re.findall(r"  Why\? .*", shown))) > 1  # more words each time
    assert shown.rstrip().endswith("vidray: stopped")
    assert len(family) > 5
    assert not psutil.wait_procs(family, timeout=DEADLINE_S)[1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_ended_while_ray_starts_leaves_no_process(model, clip, stop, code):
    # It is far from its end, however late the signal comes.
    process, screen = _started_on_a_terminal(model, clip, "--max-new-tokens", "30000")
    try:
        _read_until(screen, "waiting for")
        family = _family(process.pid)
        process.send_signal(stop)
        assert process.wait(DEADLINE_S) == code
    finally:
        process.kill()
        os.close(screen)
    assert len(family) > 2
    assert not psutil.wait_procs(family, timeout=DEADLINE_S)[1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("server", "stop", "code"),
    [("raylet", signal.SIGTERM, 143), ("gcs_server", signal.SIGINT, 130)],
)
def test_a_run_told_to_end_before_ray_has_started_leaves_no_process(
    model, clip, server, stop, code
):
    # Whoever is late with the signal meets a run that says nothing and is far from its end.
    process = subprocess.Popen(
        command(model, clip, "--quiet", "--max-new-tokens", "30000", where=OVER_RAY),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        family = []
        while server not in map(_name, family):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
            family = _family(process.pid)
        process.send_signal(stop)
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert (process.returncode, said) == (code, "vidray: stopped\n" if code == 130 else "")
    assert not psutil.wait_procs(family, timeout=DEADLINE_S)[1]


def _started_on_a_terminal(model, *arguments):
    """A run over Ray that a terminal controls, and the terminal."""
    screen, far_end = pty.openpty()
    process = subprocess.Popen(
        command(model, *arguments, where=OVER_RAY),
        env=ENVIRONMENT,
        stdin=far_end,
        stdout=far_end,
        stderr=far_end,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(far_end)
    return process, screen


def _read_until(screen, pattern):
    """What the terminal shows, plain, up to the pattern; the test's timeout bounds it."""
    sent = bytearray()
    while not re.search(pattern, shown := plain(sent.decode(errors="replace"))):
        try:
            sent += os.read(screen, 65_536)
        except OSError:  # EIO: the other end was closed
            pytest.fail(f"ended before {pattern!r} was shown:\n{shown}")
    return shown
