"""Numbers: each stands in the table, is looked at somewhere, and is what happened."""

import ast
import json
import math
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from jobs.sight.board import board, expressions
from jobs.sight.exporter import exported
from jobs.sight.job_sight import JobMeters
from jobs.sight.meters import Meters
from jobs.sight.operator_view import Lookback, body, look, shown
from jobs.sight.panels import ROWS, Now, Quantile, Rate, Share
from jobs.sight.samples import MetricSamples, quantile
from jobs.sight.top import fetch, page_url, run
from jobs.sight.work import WorkMeters, follow_disks
from pipeline.config import Sampling
from pipeline.errors import Blame, ConfigError, FailureCode, Transient
from pipeline.events import Moved, Planned, Words
from pipeline.metric_table import METRICS
from pipeline.span import Process, Span
from pipeline.tasks.requests import Request
from tests.report_rows import bad_row, good_row

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
READER, ENCODER, DECODER = (
    Process(name, number, "here", epoch_s=0.0)
    for number, name in enumerate(("reader-0", "encoder-0", "decoder-0"))
)
REQUEST = Request(
    kind="ask", subject="Why?", prompt="Why?", sampling=Sampling(), start_s=0.0, end_s=1.0
)


def samples(page: bytes | str, at_s: float = 0.0) -> MetricSamples:
    return MetricSamples.parse(page.decode() if isinstance(page, bytes) else page, at_s=at_s)


def values(meters: Meters, name: str) -> dict[str, float]:
    """By the value of its only label."""
    series = samples(meters.page()).of(name, {})
    return {"".join(value for _, value in at): value for at, value in series.items()}


def modules() -> Iterator[Path]:
    for package in ("pipeline", "actors", "jobs", "deploy"):
        yield from (ROOT / package).rglob("*.py")


def test_nothing_but_the_table_makes_a_metric() -> None:
    makers = {"actors/metrics.py", "jobs/sight/meters.py"}
    found = set()
    for file in modules():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = {name.name for name in node.names}
            module = getattr(node, "module", None)
            is_metric = module == "prometheus_client" and names & {"Counter", "Gauge", "Histogram"}
            if is_metric or "ray.util.metrics" in {module, *names}:
                found.add(str(file.relative_to(ROOT)))
    assert found == makers


def test_what_the_table_does_not_have_cannot_be_counted() -> None:
    meters = Meters("job")
    with pytest.raises(KeyError):
        meters.add("vidray_surprises")
    with pytest.raises(KeyError):
        meters.add("vidray_requests")  # an endpoint's
    with pytest.raises(ValueError, match="label"):
        meters.add("vidray_chunks", colour="red")


def test_every_number_is_looked_at() -> None:
    text = ALERTS.read_text("utf-8") + board()
    assert [each.name for each in METRICS.values() if each.name not in text] == []


def test_names_follow_prometheus_and_units_are_said() -> None:
    for each in METRICS.values():
        assert re.fullmatch(r"vidray(_[a-z]+)+", each.name)
        assert not each.name.endswith("_total")  # Prometheus adds it
        assert each.unit
        assert each.text.endswith(".")


def test_queues_are_what_lies_between_stages() -> None:
    meters = Meters("job")
    work = WorkMeters(meters)
    work.hear("a", begun(10))
    assert values(meters, "vidray_queue") == {"read": 10, "encode": 0, "prefill": 0}
    work.hear("a", Moved(4, span("read", READER, num_frames=8, num_bytes=100), 0, 0))
    work.hear("a", Moved(4, span("read", READER, num_frames=8, num_bytes=100), 0, 1))
    work.hear("a", Moved(4, span("encode", ENCODER, num_tokens=16, num_bytes=50), 0, 0))
    assert values(meters, "vidray_queue") == {"read": 2, "encode": 4, "prefill": 4}
    assert values(meters, "vidray_on_the_way_bytes") == {"": 250}
    work.hear("a", Moved(4, span("prefill", DECODER, num_tokens=16, kv_share=0.25), 0, 0))
    assert values(meters, "vidray_queue") == {"read": 2, "encode": 4, "prefill": 0}
    assert values(meters, "vidray_kv_share") == {"decoder-0": 0.25}
    assert values(meters, "vidray_frames_total")["read"] == 16
    work.done("a")
    assert values(meters, "vidray_queue") == {"read": 0, "encode": 0, "prefill": 0}
    assert values(meters, "vidray_on_the_way_bytes") == {"": 0}


def test_a_video_that_starts_anew_after_a_loss_leaves_nothing_in_the_queues() -> None:
    meters = Meters("job")
    work = WorkMeters(meters)
    work.hear("a", begun(10))
    work.hear("a", Moved(4, span("read", READER, num_bytes=100), 0, 0))
    work.hear("a", begun(10))
    assert values(meters, "vidray_queue") == {"read": 10, "encode": 0, "prefill": 0}
    assert values(meters, "vidray_on_the_way_bytes") == {"": 0}


def test_another_question_on_a_video_that_is_being_watched_changes_no_queue() -> None:
    meters = Meters("endpoint")
    work = WorkMeters(meters)
    work.hear("a", begun(10))
    work.hear("a", Moved(4, span("read", READER, num_bytes=100), 0, 0))
    work.hear("a", begun(0))
    assert values(meters, "vidray_queue") == {"read": 6, "encode": 4, "prefill": 0}
    assert values(meters, "vidray_on_the_way_bytes") == {"": 100}


def test_chunks_of_one_batch_share_its_time() -> None:
    meters = Meters("job")
    work = WorkMeters(meters)
    for chunk in range(4):
        work.hear("a", Moved(2, span("encode", ENCODER, at=(1.0, 3.0)), 0, chunk))
    work.hear("a", Moved(2, span("encode", ENCODER, at=(2.5, 4.0)), 0, 4))
    assert values(meters, "vidray_busy_seconds_total")["encode"] == 3.0


def test_the_tokens_of_an_answer_count_when_it_ends() -> None:
    meters = Meters("job")
    work = WorkMeters(meters)
    work.hear("a", Words(REQUEST, "A red", span("generate", DECODER)))
    work.hear("a", Words(REQUEST, "", span("generate", DECODER, num_tokens=5)))
    assert values(meters, "vidray_tokens_total")["generate"] == 5


def test_rows_of_a_job_are_counted_by_status_and_code() -> None:
    seen = JobMeters()
    seen.follow_breakers(lambda: Blame.STORE)
    seen.row(good_row(0))
    seen.row(bad_row(1))
    seen.part()
    assert values(seen.meters, "vidray_videos_total") == {"ok": 1, "failed": 1}
    failures = values(seen.meters, "vidray_failures_total")
    assert {code for code, count in failures.items() if count} == {bad_row(1).code}
    assert set(failures) == set(FailureCode)  # from the start, so that a first one is a rate
    assert values(seen.meters, "vidray_parts_total") == {"": 1}
    assert values(seen.meters, "vidray_breaker_open") == {"store": 1.0, "fleet": 0.0}


def test_disks_are_measured_where_a_folder_is_still_to_be_made(tmp_path: Path) -> None:
    meters = Meters("job")
    follow_disks(meters, {"output": tmp_path / "not" / "yet"})
    size = values(meters, "vidray_disk_size_bytes")["output"]
    assert 0 <= values(meters, "vidray_disk_free_bytes")["output"] <= size
    assert size > 0


def test_a_job_exports_while_it_works_and_not_after() -> None:
    seen, said = JobMeters(), Console(record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with exported(seen.meters, "0", said):
        address = re.search(r"http://127\.0\.0\.1:\d+/metrics", said.export_text(clear=False))[0]
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310
            assert b"vidray_running 0.0" in answer.read()
        assert page_url(address.split("/")[2].rpartition(":")[2]) == address
        fetch(address)
    with pytest.raises(Transient):
        fetch(address)


def test_top_shows_a_job_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    seen, said = JobMeters(), Console(record=True, stderr=True)
    seen.follow_job(num_planned=8, num_done=lambda: 2)
    seen.row(bad_row(1))
    with exported(seen.meters, "0", said):
        (address,) = re.findall(r"http://(\S+)/metrics", said.export_text())
        assert run(address, every_s=0.1, looks=1, console=Console(width=100)) == 0
    picture = capsys.readouterr().out
    assert re.search(r"Done +25 %", picture)
    assert re.search(rf"Failures +{bad_row(1).code} 1", picture)
    assert "Requests" not in picture


def test_top_ends_well_with_the_job_that_it_shows() -> None:
    said, screen = Console(record=True, stderr=True), Console(record=True, width=100)
    deadline_s = time.monotonic() + 30
    with ThreadPoolExecutor(1) as pool:
        with exported(JobMeters().meters, "0", said):
            (address,) = re.findall(r"http://(\S+)/metrics", said.export_text())
            showing = pool.submit(run, address, every_s=0.05, looks=None, console=screen)
            while "Work" not in screen.export_text(clear=False):
                assert not showing.done()
                assert time.monotonic() < deadline_s
        assert showing.result(timeout=30) == 0
    assert "It has ended" in screen.export_text()


@pytest.mark.parametrize("address", ["nine", "host:", "127.0.0.1:70000", "host:port", "\u00b2"])
def test_an_address_nobody_can_listen_at_is_refused(address: str) -> None:
    with (
        pytest.raises(ConfigError, match="--metrics"),
        exported(Meters("job"), address, Console(quiet=True)),
    ):
        pass


@pytest.mark.parametrize(
    "address",
    ["ftp://host", "[x", "a[b]c", "http://a b", "host:port", "host:99999", "host:0", "a\n", ""],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="^ADDRESS must be PORT, HOST:PORT or http://..., got "):
        page_url(address)


def test_an_address_of_ipv6_is_one() -> None:
    assert page_url("[::1]:8000") == "http://[::1]:8000/metrics"


PAGES = (
    'vidray_tokens_total{stage="encode"} 100\nvidray_tokens_total{stage="prefill"} 40\n'
    'vidray_kv_share{process="decoder-0"} 0.5\n'
    'vidray_first_word_seconds_bucket{le="0.5"} 1\nvidray_first_word_seconds_bucket{le="1.0"} 1\n'
    'vidray_first_word_seconds_bucket{le="+Inf"} 1\n',
    'vidray_tokens_total{stage="encode"} 160\nvidray_tokens_total{stage="prefill"} 10\n'
    'vidray_kv_share{process="decoder-0"} 0.75\n'
    'vidray_first_word_seconds_bucket{le="0.5"} 1\nvidray_first_word_seconds_bucket{le="1.0"} 3\n'
    'vidray_first_word_seconds_bucket{le="+Inf"} 3\n',
)


def test_values_between_two_looks() -> None:
    before, now = (samples(page, at_s) for page, at_s in zip(PAGES, (0.0, 10.0), strict=True))
    rate = Rate("vidray_tokens", by=("stage",))
    assert rate.values(before, now) == {("encode",): 6.0, ("prefill",): 1.0}  # prefill began anew
    assert Now("vidray_kv_share").values(before, now) == {(): 0.75}
    assert Quantile(0.5, "vidray_first_word_seconds").values(before, now) == {(): 0.75}
    assert Quantile(0.5, "vidray_first_word_seconds").values(now, now) == {}  # nothing meanwhile
    share = Share(Now("vidray_kv_share"), Rate("vidray_tokens", by=()))
    assert share.values(before, now) == {(): 0.75 / 7}


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile(0.9, {1.0: 1.0, math.inf: 10.0}) == 1.0
    assert math.isnan(quantile(0.9, {}))


def test_what_is_seen_is_of_the_last_seconds_and_says_how_many() -> None:
    before, now = (samples(page, at_s) for page, at_s in zip(PAGES, (0.0, 4.0), strict=True))
    window_s, rows = Lookback(before).look(now)
    assert window_s == 4.0
    titles = {panel.title: panel for row in rows for panel in row.panels}
    assert [reading.value for reading in titles["Tokens"].readings] == [15.0, 2.5]
    assert json.dumps(body(window_s, rows))
    assert "Requests" not in titles  # nothing is said of what the page does not have


def test_looks_further_apart_than_the_window_stand_for_all_between_them() -> None:
    lookback = Lookback(samples(PAGES[0], 0.0))
    ends = [lookback.look(samples(PAGES[1], at_s))[0] for at_s in (2.0, 4.0, 11.0, 13.0, 60.0)]
    assert ends == [2.0, 4.0, 11.0, 11.0, 47.0]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.123, "share", "12 %"),
        (3 << 20, "bytes", "3.0 MiB"),
        (12345.6, "tokens/s", "12,346 tokens/s"),
        (0.25, "s", "0.25 s"),
        (3, "", "3"),
        (0.00194, "processes", "0.00 processes"),
        (3 << 20, "bytes/s", "3.0 MiB/s"),
    ],
)
def test_values_are_written_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_the_board_has_every_panel_once_and_none_overlaps() -> None:
    panels = json.loads(board())["panels"]
    assert len(expressions(board())) == sum(len(row.panels) for row in ROWS)
    cells = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_an_empty_view_says_nothing() -> None:
    empty = samples("", 0.0)
    assert look(empty, empty) == []


@needs_promtool
def test_alerts_fire_where_they_should_and_nowhere_else(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(
        (ROOT / "tests/alerts.yaml").read_text("utf-8").replace("../deploy/prometheus/", "")
    )

    def tested(rules: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "alerts.yaml").write_text(rules)
        command = [str(PROMTOOL), "test", "rules", str(cases)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    rules = ALERTS.read_text("utf-8")
    done = tested(rules)
    assert done.returncode == 0, done.stdout + done.stderr
    for right, wrong in (
        (" > 0", " < 0"),
        ("vidray_running", "vidray_runnin"),
        ("for: ", "for: 9"),
    ):
        assert right in rules
        assert tested(rules.replace(right, wrong)).returncode != 0, f"{wrong} is not found"


def test_each_alert_is_shown_to_fire_and_not_to_fire_and_says_what_to_do() -> None:
    rules = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"][0]["rules"]
    names = {rule["alert"] for rule in rules}
    shown_to: dict[str, set[bool]] = {name: set() for name in names}
    for test in yaml.safe_load((ROOT / "tests/alerts.yaml").read_text("utf-8"))["tests"]:
        for case in test["alert_rule_test"]:
            shown_to[case["alertname"]].add(bool(case["exp_alerts"]))
    assert shown_to == {name: {True, False} for name in names}
    operations = (ROOT / "docs/operations.md").read_text("utf-8")
    assert [name for name in names if f"`{name}`" not in operations] == []


def test_alerts_ask_for_numbers_of_the_table() -> None:
    names = set(re.findall(r"\b(?:ray_)?(vidray_\w+)", ALERTS.read_text("utf-8")))
    known = {each.exported for each in METRICS.values()}
    assert names <= known


def begun(num_steps: int) -> Planned:
    media: Any = None
    return Planned(media=media, plan=media, num_steps=num_steps, span=span("plan", READER))


def span(
    stage: str, process: Process, *, at: tuple[float, float] = (0.0, 1.0), **amounts: float
) -> Span:
    return Span(stage=stage, process=process, started_s=at[0], ended_s=at[1], **amounts)  # type: ignore[arg-type]
