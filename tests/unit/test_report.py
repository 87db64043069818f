"""The report page: complete, self-contained, and never taken over by the text it shows."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.report.page import duration, write_report
from jobs.report.report_rows import read_records
from jobs.report.strips import FRAMES, still_times
from jobs.report.tally import Tally, histogram
from jobs.report.view import Still, VideoView, visible
from pipeline.errors import BadInput, ConfigError, FailureCode
from pipeline.store.commit import Part, commit_part
from pipeline.store.local import LocalStore
from pipeline.tasks.records import Record, to_table
from tests.report_rows import ATTACK, bad_row, good_row, hostile_rows

STILL = Still(time_s=1.0, jpeg=b"\xff\xd8jpeg")


class Page(HTMLParser):
    """The written page as a browser would cut it: its tags, its scripts, its other text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_data(self, data: str) -> None:
        tag = self.tags[-1][0] if self.tags else ""
        if tag in self.inside and self.cdata_elem == tag:
            self.inside[tag][-1] += data
        else:
            self.text += data

    @property
    def videos(self) -> list[dict[str, Any]]:
        return json.loads(self.inside["script"][0])


@pytest.fixture
def page_of(tmp_path: Path) -> Any:
    def write(records: list[Record], **options: Any) -> Page:
        write_report(records, tmp_path / "report.html", **options)
        return Page(tmp_path / "report.html")

    return write


def test_the_page_asks_nothing_of_a_network(page_of: Any) -> None:
    page = page_of([good_row(), bad_row(1)], read_stills=lambda record: [STILL])
    assert not re.findall(r"(?:https?:|wss?:|[\"'(]//)", page.html)
    assert not re.findall(r"@import|url\(", page.inside["style"][0])
    addresses = [a[name] for _, a in page.tags for name in ("src", "href", "action") if name in a]
    assert {address[:5] for address in addresses} <= {"data:", "#list"}
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_policy_allows_exactly_the_pages_own_style_and_script(page_of: Any) -> None:
    page = page_of([good_row()])
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    for text in (page.inside["style"][0], page.inside["script"][1]):
        assert b64encode(sha256(text.encode()).digest()).decode() in policy
    assert "unsafe" not in policy
    assert not [a for _, a in page.tags for name in a if name == "style" or name.startswith("on")]


def test_hostile_text_stays_text(page_of: Any) -> None:
    page = page_of(hostile_rows(), title=ATTACK)
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in page.tags]
    video, failed = page.videos
    assert video["captions"][0]["text"] == ATTACK
    assert video["folder"] + video["name"] == f"/videos/{ATTACK}.mp4"
    assert failed["detail"] == ATTACK
    assert page.text.count(ATTACK) == 3  # title, heading and the model's name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ünïcode 犬", "Ünïcode 犬"),
        ("two\nlines", "two\nlines"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("bell\x07", "bell\\x07"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_row_is_on_the_page_in_order(page_of: Any) -> None:
    rows = [bad_row(index) if index % 9 == 0 else good_row(index) for index in range(100)]
    videos = page_of(rows).videos
    assert [video["folder"] + video["name"] for video in videos] == [row.uri for row in rows]
    assert [video["code"] or None for video in videos] == [row.code for row in rows]


def test_a_row_costs_little_more_than_a_kilobyte(page_of: Any) -> None:
    few, many = (len(page_of([good_row(i) for i in range(n)]).html) for n in (10, 1010))
    assert (many - few) / 1000 < 1500


def test_rows_beyond_the_list_still_count(page_of: Any) -> None:
    page = page_of([good_row(0), good_row(1), bad_row(2)], max_listed=2)
    assert len(page.videos) == 2
    assert "the first 2 of 3 videos" in page.text
    assert "truncated" in page.text


def test_frames_are_shown_for_the_first_videos_only(page_of: Any) -> None:
    read: list[str] = []

    def read_stills(record: Record) -> list[Still]:
        read.append(record.uri)
        return [STILL]

    rows = [bad_row(9), good_row(0), good_row(1), good_row(2)]
    page = page_of(rows, read_stills=read_stills, max_strips=2)
    assert read == [rows[1].uri, rows[2].uri]
    assert [len(video["frames"]) for video in page.videos] == [0, 1, 1, 0]


def test_a_video_that_is_gone_leaves_a_note_and_takes_no_place(page_of: Any) -> None:
    def read_stills(record: Record) -> list[Still]:
        if record.uri == good_row(0).uri:
            raise BadInput(FailureCode.NOT_FOUND, "there is no such file")
        return [STILL]

    page = page_of([good_row(0), good_row(1)], read_stills=read_stills, max_strips=1)
    gone, shown = page.videos
    assert gone["frames_note"] == "No frames: there is no such file."
    assert len(shown["frames"]) == 1


def test_a_box_lies_on_its_own_frame_in_percent() -> None:
    stills = [replace(STILL, time_s=0.0), STILL]
    (drawn,) = VideoView.of(good_row(), stills).drawn
    assert (drawn.frame_index, drawn.box_index) == (1, 0)
    assert (drawn.left, drawn.top, drawn.width, drawn.height) == (25.0, 25.0, 25.0, 50.0)


def test_a_page_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report([good_row()], path)
    before = path.read_bytes()

    def records() -> Iterator[Record]:
        yield good_row()
        raise ConfigError("no more")

    with pytest.raises(ConfigError):
        write_report(records(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_still_moments_hold_every_boxs_frame_and_both_ends() -> None:
    times_s = still_times(good_row())
    assert times_s == sorted(times_s)
    assert {0.0, 1.0, 3.5} <= set(times_s)
    assert len(times_s) <= FRAMES
    boxes = tuple(replace(good_row().boxes[1], time_s=0.1 * index) for index in range(9))
    assert len(still_times(replace(good_row(), boxes=boxes))) == FRAMES
    assert still_times(bad_row(1)) == [0.0]


def test_the_tally_counts_what_the_rows_say() -> None:
    tally = Tally()
    codes = [FailureCode.EMPTY_FILE, FailureCode.TRUNCATED, FailureCode.TRUNCATED]
    for record in [*map(good_row, range(20)), *(bad_row(i, c) for i, c in enumerate(codes))]:
        tally.add(record)
    assert (tally.num_videos, tally.num_ok, tally.num_failed) == (23, 20, 3)
    assert tally.failures == {FailureCode.TRUNCATED: 2, FailureCode.EMPTY_FILE: 1}
    assert (tally.video_s, tally.num_frames, tally.num_tokens) == (80.0, 160, 1920)
    assert tally.num_flagged == 0
    tally.add(replace(bad_row(9), flags=("interlaced",)))
    tally.add(replace(good_row(9), flags=("interlaced",)))
    assert tally.num_flagged == 1
    whole = tally.stages[-1]
    assert (whole.name, whole.median_s, whole.p95_s) == ("whole video", 6.0, 10.0)


def test_a_histogram_holds_every_value() -> None:
    tally = Tally()
    for index in range(50):
        tally.add(good_row(index))
    bars = tally.histogram
    assert sum(bar.count for bar in bars) == 50
    assert all((bar.height > 0) == (bar.count > 0) for bar in bars)
    assert histogram(tally.times_s["read"][:1]) == []


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (245.0, "4 min 5 s"), (4_500_000.0, "1,250 h 0 min")],
)
def test_durations_are_said_in_their_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_rows_come_from_a_jobs_parts_in_order_or_from_one_file(tmp_path: Path) -> None:
    rows = [good_row(0), good_row(1), bad_row(2)]
    store = LocalStore(str(tmp_path / "out"))
    for index, chosen in ((1, rows[2:]), (0, rows[:2])):
        ids = tuple(row.video_id for row in chosen)
        part = Part(job_id="j", index=index, video_ids=ids, attempt="a")
        commit_part(store, part, to_table(chosen))
    assert list(read_records(str(tmp_path / "out"))) == rows
    assert list(read_records(str(tmp_path / "out/parts/part-00001.parquet"))) == rows[2:]


def test_what_holds_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no job's output"):
        list(read_records(str(tmp_path)))
    with pytest.raises(ConfigError, match="no folder or file"):
        list(read_records(str(tmp_path / "none.parquet")))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match="does not hold vidray's rows"):
        list(read_records(str(tmp_path / "other.parquet")))


def test_rows_of_a_demo_model_are_told_once_at_the_top_and_are_no_oddity(tmp_path):
    rows = [replace(good_row(index), flags=("demo_model",)) for index in range(2)]
    tally = write_report([*rows, good_row(2)], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("demo_model") == 1
    assert "2 rows are by a demo model" in page[: page.index('aria-label="Totals"')]
    assert tally.num_flagged == 0
    write_report([good_row(0)], tmp_path / "page.html")
    assert "demo model" not in (tmp_path / "page.html").read_text()


def test_a_lists_own_columns_are_on_the_card_as_text() -> None:
    view = VideoView.of(replace(good_row(0), extra={"la\u202ebel": ATTACK}), ())
    assert view.extra == (("la\\u202ebel", ATTACK),)
