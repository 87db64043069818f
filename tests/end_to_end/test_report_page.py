"""The report in a real browser, from disk: it lists, searches, turns pages, runs nothing else."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.demo.demo_archive import make_archive
from jobs.demo.world import COLOURS
from jobs.report.page import write_report
from jobs.report.strips import Strips
from jobs.report.view import Still
from pipeline.errors import BadInput, FailureCode
from pipeline.tasks.records import Box, Record
from tests.report_rows import bad_row, good_row, hostile_rows

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # of the browser's own processes; it refuses to start as root with it
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--enable-logging=stderr",
)

# What a reader would do, written down as one script; its findings become the page's whole text.
VISIT = """
const found = {};
const count = () => document.querySelectorAll("article").length;
const type = (id, value) => {
  find(id).value = value;
  find(id).dispatchEvent(new Event(id === "search" ? "input" : "change"));
};
found.first = [count(), find("count").textContent, find("previous").disabled];
find("next").click();
found.second = [count(), find("count").textContent, document.activeElement.id];
type("page", "99");
found.last = [count(), find("page").value, find("next").disabled];
type("search", "CLIP-00007");
found.searched = [count(), document.querySelector("h3 bdi").textContent];
type("search", "by HAND");
found.listed = [count(), document.querySelector("h3 bdi").textContent];
type("search", "no such words");
found.none = [count(), find("count").textContent];
type("search", "");
document.querySelector("[data-code=truncated]").click();
found.failed = [count(), find("status").value];
type("status", "good");
found.good = find("count").textContent;
const box = document.querySelector(".box").getBoundingClientRect();
const picture = document.querySelector(".box").parentElement.getBoundingClientRect();
found.box = [(box.left - picture.left) / picture.width, box.width / picture.width];
const before = getComputedStyle(document.body).color;
find("theme").click();
found.turned = before !== getComputedStyle(document.body).color;
document.documentElement.textContent = JSON.stringify(found);
"""


@dataclass(frozen=True)
class Visit:
    dom: str
    console: str


def visit(page: Path, profile: Path) -> Visit:
    """Load the page and give what it became, and what the browser complained of."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return Visit(dom=result.stdout, console="\n".join(console))


def jpeg() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (40, 20), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def test_hostile_rows_are_shown_and_do_not_run(tmp_path: Path) -> None:
    write_report(hostile_rows(), tmp_path / "report.html")
    seen = visit(tmp_path / "report.html", tmp_path / "profile")
    assert seen.console == ""
    assert "<title>vidray report</title>" in seen.dom
    assert seen.dom.count("<article") == 2
    assert "&lt;img src=x onerror=" in seen.dom
    assert "<img" not in seen.dom


def test_a_reader_can_page_search_filter_and_change_the_light(tmp_path: Path) -> None:
    listed = replace(good_row(9), extra={"labelled": "by hand"})
    rows = [
        *map(good_row, range(9)),
        listed,
        *map(good_row, range(10, 42)),
        bad_row(1),
        bad_row(2, FailureCode.EMPTY_FILE),
    ]
    path = tmp_path / "report.html"
    still = Still(time_s=1.0, jpeg=jpeg())
    write_report(rows, path, read_stills=lambda record: [still])
    html = path.read_text("utf-8")
    html = re.sub(r"<meta http-equiv[^>]*>", "", html)  # it forbids the script that drives the page
    path.write_text(html.replace("</body>", f"<script>{VISIT}</script></body>"), "utf-8")
    seen = visit(path, tmp_path / "profile")
    assert seen.console == ""
    found = json.loads(re.sub(r"<[^>]*>", "", seen.dom))
    assert found["first"] == [20, "1 to 20 of 44", True]
    assert found["second"] == [20, "21 to 40 of 44", "list"]
    assert found["last"] == [4, "3", True]
    assert found["searched"] == [1, "clip-00007.mp4"]
    assert found["listed"] == [1, "clip-00009.mp4"]
    assert found["none"] == [0, "No video matches."]
    assert found["failed"] == [1, "code:truncated"]
    assert found["good"] == "1 to 20 of 42"
    assert found["box"] == pytest.approx([0.25, 0.25], abs=0.02)
    assert found["turned"]


def row_of(path: Path, times_s: list[float]) -> Record:
    boxes = tuple(Box(query="it", time_s=t, outcome="absent", raw="") for t in times_s)
    return replace(good_row(uri=str(path)), size_bytes=path.stat().st_size, boxes=boxes, plan=None)


def test_strips_show_the_video_at_the_moments_of_its_boxes(tmp_path: Path) -> None:
    num_seen = 0
    for path, truth in make_archive(tmp_path, num_clips=4, seed=3):
        for wanted in truth.boxes:
            if wanted.box is None:
                continue
            (still,) = Strips().read(row_of(path, [wanted.time_s]))
            picture = np.asarray(Image.open(BytesIO(still.jpeg)), dtype=float)
            x0, y0, x1, y1 = wanted.box
            row = int((y0 + 0.6 * (y1 - y0)) / truth.height * picture.shape[0])
            column = int((x0 + x1) / 2 / truth.width * picture.shape[1])
            colour = COLOURS[wanted.query.split()[1]]
            assert np.abs(picture[row, column] - colour).max() < 60
            num_seen += 1
    assert num_seen > 1


def test_a_video_that_changed_since_is_not_shown_for_the_old_one(tmp_path: Path) -> None:
    ((path, _),) = make_archive(tmp_path, num_clips=1)
    row = row_of(path, [0.0, 0.5, 1.0])
    assert len(Strips().read(row)) == 3
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(BadInput) as caught:
        Strips().read(row)
    assert caught.value.code is FailureCode.SOURCE_CHANGED
