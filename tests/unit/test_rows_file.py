"""`vidray analyze --out rows.parquet|csv|jsonl`: what was found out, for other tools."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pandas

from jobs.report.report_rows import read_records
from jobs.rows_file import write_rows
from pipeline.tasks.records import from_json
from tests.conftest import Vidray
from tests.media_factory import Clip, make
from tests.report_rows import bad_row, good_row
from tests.tiny_folder import write_folder

ROWS = [good_row(0, text='say "it",\nnow'), bad_row(1), good_row(2)]


def test_parquet_and_json_lines_hold_the_records(tmp_path: Path) -> None:
    for name in ("rows.parquet", "rows.JSONL"):
        write_rows(ROWS, tmp_path / name)
    assert list(read_records(str(tmp_path / "rows.parquet"))) == ROWS
    assert [from_json(line) for line in (tmp_path / "rows.JSONL").open()] == ROWS


def test_csv_has_a_line_for_each_caption_answer_box_and_failure(tmp_path: Path) -> None:
    write_rows([*ROWS[:2], replace(ROWS[2], flags=("demo_model", "hdr"))], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    kinds = ["caption", "answer", "box", "box"]
    assert [line["kind"] for line in lines] == [*kinds, "failure", *kinds]
    assert lines[0]["said"] == 'say "it",\nnow'
    assert (lines[2]["x0"], lines[2]["start_s"]) == ("50.0", "1.0")
    assert (lines[3]["outcome"], lines[3]["x0"]) == ("absent", "")
    assert (lines[4]["code"], lines[4]["detail"]) == ("truncated", "half of it is there")
    assert [line["flags"] for line in lines[5:]] == ["demo_model hdr"] * 4
    assert len(pandas.read_csv(tmp_path / "rows.csv")) == 9


def test_analyze_writes_them_beside_drawn_boxes_and_says_where_nothing_was_found(
    tmp_path: Path, vidray: Vidray
) -> None:
    clip = make(tmp_path, Clip(num_frames=12))
    model = ("--model", write_folder(tmp_path / "model"), "--in-process")
    files = [tmp_path / f"rows.{kind}" for kind in ("parquet", "csv", "jsonl")]
    outs = [word for path in (*files, tmp_path / "boxes") for word in ("--out", path)]
    code, _, progress = vidray("analyze", clip, *model, "--ground", "it", *outs)
    assert f"nothing found in clip.mp4, nothing drawn in {tmp_path}/boxes" in progress
    (record,) = read_records(str(files[0]))
    assert (record.uri, code) == (str(clip), 3 if record.result_codes else 0)
    assert json.loads(files[2].read_text())["video_id"] == record.video_id
    assert list((tmp_path / "boxes").iterdir()) == []
    assert not list(tmp_path.glob(".*partial"))
    clip.unlink()  # where nothing is looked at, nothing is said to be missing
    _, _, progress = vidray("analyze", clip, *model, "--ground", "it", "--out", tmp_path / "boxes")
    assert "nothing found" not in progress


def test_a_cut_answer_is_marked(tmp_path: Path, vidray: Vidray) -> None:
    clip = make(tmp_path, Clip(num_frames=12))
    model = ("--model", write_folder(tmp_path / "model"), "--in-process")
    _, said, _ = vidray("analyze", clip, *model, "--max-new-tokens", 3)
    assert said.endswith("[cut off at the longest answer]\n")
