"""What a job shows of itself: one line on a terminal, plain lines on a pipe, events in a file."""

import io
import json
import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from jobs.batch.event_log import Events, open_events
from jobs.batch.watch import LINE_EVERY_S, Watch, describe_failures
from jobs.messages import messages_on
from pipeline.errors import ConfigError, FailureCode, StoreFull
from pipeline.store.commit import Receipt
from pipeline.store.job_plan import JobPlan, Shard
from pipeline.store.rows import RowCounts
from tests.batch_driver import SPEC
from tests.report_rows import ATTACK, bad_row, good_row

PLAN = JobPlan(job_id="j1", spec=SPEC, shards=(Shard(sha256="0" * 64, num_items=10),))


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(
    clock: Clock, *, terminal: bool = False, width: int = 120, **options: object
) -> tuple[Watch, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, no_color=True)
    before = options.pop("before", RowCounts())
    options.setdefault("events", Events(job_id="j1"))
    return Watch(console, options.pop("plan", PLAN), before, clock=clock, **options), text


def test_speed_and_time_left_are_counted_from_the_first_row_on(clock: Clock) -> None:
    watch, text = make(clock)
    with watch:
        clock.now_s += 50  # models are being loaded
        watch.begin(range(PLAN.num_parts))
        clock.now_s += 4
        watch.video(good_row(0))
        watch.video(good_row(1))  # eight seconds of video in four
        assert watch.line() == (
            "2/10 videos, 0 failed, 0:00:16 left, 2.0 video-seconds/s, 20%, 0:00:54 passed"
        )


def test_a_pipe_gets_a_line_now_and_then_and_a_last_one(clock: Clock) -> None:
    watch, text = make(clock)
    with watch:
        for index in range(10):
            clock.now_s += LINE_EVERY_S / 2.5
            watch.video(good_row(index))
    lines = text.getvalue().splitlines()
    assert lines[0] == "job j1: 10 videos in 4 parts"
    assert [line.partition(" ")[0] for line in lines[1:]] == ["3/10", "6/10", "9/10", "10/10"]


def test_a_terminal_gets_one_line_that_is_drawn_again_and_gets_its_cursor_back(
    clock: Clock,
) -> None:
    watch, text = make(clock, terminal=True, figures=lambda: ["prefill is the bottleneck"])
    with watch:
        watch.begin(range(PLAN.num_parts))
        watch.video(good_row(0))
        watch.video(bad_row(1))
        watch._live.refresh()
    screen = text.getvalue()
    assert "2/10 videos, 1 failed" in screen
    assert "prefill is the bottleneck" in screen
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")


FIGURES = ["all wait for generate", "KV 100%", "9999 frames/s read", "99999 tokens/s encoded"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_narrow_terminal_what_matters_least_gives_way(clock: Clock, width: int) -> None:
    plan = replace(PLAN, shards=(Shard(sha256="0" * 64, num_items=999_999),))
    before = RowCounts(num_rows=499_990)
    before.codes["truncated"] = 99_999
    watch, text = make(
        clock, terminal=True, width=width, plan=plan, before=before, figures=lambda: FIGURES
    )
    with watch:
        watch.begin(range(before.num_rows // 3, plan.num_parts))
        for index in range(10):
            watch.video(good_row(index))
        clock.now_s += 4
        watch.stopping(86_400)
        with watch._live._lock:  # its own thread draws too, whenever it likes
            text.truncate(0)
            watch._live.refresh()
            screen = text.getvalue()
    for words in (
        "500000/999999 videos, 99999 failed, 2 days, 7:33:20 left",
        "all wait for generate, KV 100%",
        "stopping: parts under way get 86400 s; stop again to end now",
    ):
        assert words in screen
    assert "\N{HORIZONTAL ELLIPSIS}" not in screen
    assert ("10.0 video-seconds/s" in screen) == ("frames/s read, 99999" in screen) == (width > 60)
    assert ("0:00:04 passed" in screen) == ("no new part is begun" in screen) == (width > 80)


def test_a_resumed_job_counts_what_was_there(clock: Clock) -> None:
    before = RowCounts(num_parts=2, num_rows=6)
    before.codes["truncated"] = 2
    watch, text = make(clock, before=before)
    with watch:
        watch.video(bad_row(1))
    assert "job j1: 10 videos in 4 parts, 6 of them done before" in text.getvalue()
    assert "7/10 videos, 3 failed" in text.getvalue()
    assert describe_failures(watch.codes, watch.result_codes) == "3 failed: 3 truncated"
    assert before.codes == {"truncated": 2}


def test_what_another_driver_made_while_this_one_started_is_done_and_looked_at(
    clock: Clock,
) -> None:
    watch, text = make(clock)
    with watch:
        watch.begin([3])
        assert watch.line().startswith("9/10 videos, 0 failed")
    assert watch.is_shared
    watch, text = make(clock, before=RowCounts(num_parts=3, num_rows=9))
    with watch:
        watch.begin([3])
    assert not watch.is_shared  # it was there before


def test_events_are_json_lines_without_a_word_of_user_or_model(clock: Clock) -> None:
    file = io.StringIO()
    watch, text = make(clock, events=Events(file, job_id="j1"))
    row = replace(good_row(text=ATTACK), uri="/a\nb.mp4")
    with suppress(StoreFull), watch:
        watch.video(row)
        watch.part(Receipt(index=2, is_mine=True, sha256="ab"))
        watch.video(bad_row(1, FailureCode.NOT_FOUND, detail=ATTACK))
        raise StoreFull("full")
    events = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["started", "video", "part", "video", "stopped"]
    assert {event["job"] for event in events} == {"j1"}
    assert (events[1]["uri"], events[1]["video_s"]) == ("/a\nb.mp4", 4.0)
    assert (events[3]["code"], events[3]["video_s"]) == ("not_found", 0.0)
    assert events[4]["error"] == "StoreFull"
    assert "script" not in file.getvalue()
    assert text.getvalue().splitlines()[-1].startswith("stopped: 3 of 10 rows are committed")


def test_events_are_added_to_a_file_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with open_events(path) as file:
            Events(file, job_id="j1").tell("started")
    assert len(path.read_text().splitlines()) == 2
    with (
        pytest.raises(ConfigError, match="--events"),
        open_events(tmp_path / "none" / "events.jsonl"),
    ):
        pass


def test_parts_that_another_driver_made_are_done_too(clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    with open_events(file) as stream:
        watch, text = make(clock, events=Events(stream, job_id="j1"))
        with watch:
            watch.found(1)
            assert watch.line().startswith("3/10 videos, 0 failed")
            assert watch.is_shared
    assert [event["event"] for event in map(json.loads, file.read_text().splitlines())] == [
        "started",
        "found",
        "finished",
    ]


def test_a_part_that_another_driver_committed_first_makes_the_job_a_shared_one(
    clock: Clock,
) -> None:
    watch, _ = make(clock)
    watch.part(Receipt(index=0, is_mine=True, sha256=""))
    assert not watch.is_shared
    watch.part(Receipt(index=1, is_mine=False, sha256=""))
    assert watch.is_shared


def test_what_the_parts_say_goes_to_the_jobs_console_as_text(clock: Clock) -> None:
    watch, text = make(clock, terminal=True, width=60)
    log = logging.getLogger("vidray.store")
    with messages_on(watch._console), watch:
        watch.begin(range(PLAN.num_parts))
        log.warning("%s; asking again, %d of %d", "s3://a/[red]\x1b[2J" + "b" * 60, 3, 16)
    log.warning("nobody shows this one here")
    shown = text.getvalue()
    assert (
        "s3://a/[red]\N{REPLACEMENT CHARACTER}[2J" + "b" * 60 + "; asking again, 3 of 16" in shown
    )
    assert "nobody" not in shown
