"""What a job wrote can be counted, checked, flattened, shown and compared."""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow.parquet as pq
import pytest

from jobs.batch.replay import differences
from jobs.batch.tables import derive, flatten
from pipeline.errors import StoreCorrupt
from pipeline.store.commit import Part, build_part, part_index
from pipeline.store.job_plan import JobPlan
from pipeline.store.local import LocalStore
from pipeline.store.objects import ObjectInfo
from pipeline.store.rows import count_rows
from pipeline.tasks.records import SCHEMA, to_table
from tests.job_rows import commit_job, records
from tests.report_rows import bad_row, good_row

ROOT = Path(__file__).parents[2]
Vidray = Callable[..., tuple[int, str, str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished job of five videos in two parts."""
    commit(tmp_path / "out", parts=(0, 1))
    return tmp_path / "out"


def commit(folder: Path, *, parts: tuple[int, ...]) -> JobPlan:
    return commit_job(LocalStore(str(folder)), parts=parts)


class WatchedStore(LocalStore):
    """Counts what is read of it, and how often."""

    num_bytes = num_reads = 0

    def get_range(self, key: str, *, start: int, stop: int, etag: str | None = None) -> bytes:
        self.num_bytes += stop - start
        self.num_reads += 1
        return super().get_range(key, start=start, stop=stop, etag=etag)

    def spool(self, key: str, *args: Any, **options: Any) -> ObjectInfo:
        assert part_index(key) is None, "a part was read whole"
        return super().spool(key, *args, **options)


def test_counting_rows_reads_little_of_large_parts_and_small_ones_once(tmp_path: Path) -> None:
    # Words that do not compress: a part of megabytes.
    large = [
        good_row(index, text=random.Random(index).randbytes(500_000).hex()) for index in (0, 2)
    ]
    store = WatchedStore(str(tmp_path))
    for index, rows in enumerate([[*large, bad_row(1)], [good_row(3)], [bad_row(4), good_row(5)]]):
        ids = tuple(row.video_id for row in rows)
        part = Part(job_id="j", index=index, video_ids=ids, attempt="a")
        store.put_new(part.key, build_part(part, to_table(rows)))
    store.put_new("parts/notes.txt", b"not ours")
    made = count_rows(store)
    assert (made.num_parts, made.num_rows, made.codes) == (3, 6, {"truncated": 2})
    assert store.head("parts/part-00000.parquet").size_bytes > 1_000_000
    assert store.num_bytes < 300_000
    assert store.num_reads <= 3 + 1 + 4  # the codes of videos, captions, answers, boxes


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no Parquet" * 10_000])
def test_what_is_no_part_of_the_job_is_named_and_not_counted(
    content: bytes, tmp_path: Path
) -> None:
    store = LocalStore(str(tmp_path))
    commit(tmp_path, parts=(0,))
    store.put_new("parts/part-00001.parquet", content)
    store.put_new("parts/part-00002.parquet", b"beyond the plan")
    made = count_rows(store)
    assert made.num_parts == 1
    (foreign,) = made.foreign
    assert foreign.startswith("parts/part-00001.parquet is not readable as Parquet")


class LosingStore(LocalStore):
    """Lists what is gone when it is read."""

    def scan(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in list(super().scan(prefix)):
            self.delete(info.key)
            yield info


def test_a_part_that_is_gone_when_it_is_counted_is_named(out: Path) -> None:
    with pytest.raises(StoreCorrupt, match="part-00000.parquet was listed, and now no such"):
        count_rows(LosingStore(str(out)))


def test_flat_tables_hold_every_element_once_with_its_video() -> None:
    rows = to_table(records())
    for name in ("captions", "answers", "boxes"):
        expected = [
            {name: getattr(record, name) for name in ("video_id", "uri", "flags")} | asdict(element)
            for record in records()
            for element in getattr(record, name)
        ]
        flat = flatten(rows, name)
        flat.validate(full=True)
        assert [
            {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
            for row in flat.to_pylist()
        ] == expected
    x0 = flatten(rows, "boxes").schema.field("x0")
    assert b"source pixels" in x0.metadata[b"doc"]


def test_tables_grow_with_their_job_and_are_made_once(tmp_path: Path, vidray: Vidray) -> None:
    folder = tmp_path / "out"
    commit(folder, parts=(1,))
    assert vidray("tables", folder)[0] == 0
    first = (folder / "tables/captions/part-00001.parquet").stat()
    commit(folder, parts=(0, 1))
    code, said, _ = vidray("tables", folder)
    assert (code, said.splitlines()[0]) == (0, f"{folder}/tables/captions/*.parquet: 4 rows")
    assert (folder / "tables/captions/part-00001.parquet").stat() == first
    boxes = pq.read_table(folder / "tables/boxes")
    assert boxes.num_rows == 8
    assert dict(derive(LocalStore(str(folder)))).keys() == {"captions", "answers", "boxes"}
    assert vidray("fsck", folder)[0] == 3  # one failed, as status says


def test_status_counts_from_the_store_alone(tmp_path: Path, vidray: Vidray) -> None:
    plan = commit(tmp_path / "out", parts=(0,))
    code, said, _ = vidray("batch", "status", tmp_path / "out")
    assert code == 1
    assert f"{plan.job_id}, not finished" in said
    assert "3 of 5, 1 failed: 1 truncated" in said
    assert "1 of 2" in said
    commit(tmp_path / "out", parts=(0, 1))
    code, said, _ = vidray("batch", "status", tmp_path / "out")
    assert code == 3
    assert f"{plan.job_id}, finished" in said


def test_what_a_job_passed_over_stands_in_its_status_and_on_its_page(
    out: Path, tmp_path: Path, vidray: Vidray
) -> None:
    said = "4 files passed over: .txt 3, .rm 1"
    assert said in vidray("batch", "status", out)[1]
    assert vidray("report", out, "--page", tmp_path / "page.html")[0] == 0
    assert said in (tmp_path / "page.html").read_text()
    part = out / "parts/part-00000.parquet"
    assert vidray("report", part, "--page", tmp_path / "p.html")[0] == 0
    assert "passed over" not in (tmp_path / "p.html").read_text()


def test_fsck_says_what_is_missing_wrong_or_left_over(out: Path, vidray: Vidray) -> None:
    assert vidray("fsck", out) == (3, said_of(out, "5 of 5 rows are sound", "finished"), "")
    (out / "parts/.ab.tmp").write_bytes(b"torn")
    (out / "parts/part-00001.parquet").write_bytes(b"PAR1")
    code, said, _ = vidray("fsck", out, "--clean")
    assert code == 1
    assert "wrong: parts/part-00001.parquet: " in said
    assert "not in the plan: parts/.ab.tmp, 4 bytes, left" in said  # it is young


def test_fsck_puts_damage_aside_and_the_job_goes_on(out: Path, vidray: Vidray) -> None:
    assert vidray("tables", out)[0] == 0
    (out / "parts/part-00001.parquet").chmod(0o644)
    (out / "parts/part-00001.parquet").write_bytes(b"PAR1")
    for command in (("show", out), ("batch", "status", out), ("tables", out)):
        code, _, said = vidray(*command)
        assert (code, len(said.splitlines())) == (1, 1)
        assert "--repair mends it" in said
    code, said, _ = vidray("fsck", out)
    assert (code, "vidray fsck --repair, then run the job again" in said) == (1, True)
    code, said, _ = vidray("fsck", out, "--repair")
    assert code == 1
    assert "moved aside: parts/part-00001.parquet, to damaged/parts/part-00001.parquet." in said
    assert "run the job again: it makes what is missing now" in said
    (aside,) = (out / "damaged/parts").iterdir()
    assert aside.read_bytes() == b"PAR1"
    assert len(list((out / "damaged/tables").glob("*/part-00001.parquet.*"))) == 3
    assert [path.name for path in out.glob("parts/*.parquet")] == ["part-00000.parquet"]
    for command in (("batch", "status", out), ("fsck", out)):
        assert vidray(*command)[0] == 1  # not finished
    commit(out, parts=(0, 1))
    for command in (("batch", "status", out), ("fsck", out)):
        assert vidray(*command)[0] == 3  # finished, with a row that failed


def said_of(out: Path, *lines: str) -> str:
    job_id = json.loads((out / "plan.json").read_text())["job_id"]
    return f"job {job_id}: " + "\n".join(lines) + "\n"


def test_show_prints_a_line_per_video_or_one_in_full(out: Path, vidray: Vidray) -> None:
    code, said, _ = vidray("show", out)
    assert (code, len(said.splitlines())) == (0, 5)
    assert said.splitlines()[1] == "/videos/1.mp4: truncated: half of it is there"
    assert len(vidray("show", out, "--limit", 2)[1].splitlines()) == 2
    for name in ("/videos/3.mp4", "3.mp4", records()[3].video_id):
        code, said, _ = vidray("show", out, name)
        assert (code, said.splitlines()[0]) == (0, "/videos/3.mp4")
        assert "  provenance: model tiny, model_digest ab12" in said
        assert "  plan: hash ef56" in said
    _, said, _ = vidray("show", out, "3.mp4", "--json")
    assert json.loads(said)["boxes"][0]["x1"] == 100.0


@pytest.mark.parametrize("command", [("show",), ("replay",)])
def test_a_video_that_is_not_there_and_a_folder_without_a_job_are_told(
    command: tuple[str, ...], out: Path, tmp_path: Path, vidray: Vidray
) -> None:
    code, _, said = vidray(*command, out, "9.mp4")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "9.mp4" in said
    code, _, said = vidray(*command, tmp_path, "9.mp4")
    assert (code, said) == (2, f"vidray: {tmp_path} holds no job: it has no plan.json\n")


def test_differences_are_named_by_their_path_and_timings_are_none() -> None:
    was = asdict(good_row())
    now = asdict(good_row())
    now["timings"]["total_s"] = 99.0
    assert list(differences(was, now)) == []
    now["captions"][0]["text"] = "Blue."
    now["flags"] = ("hdr",)
    now["media"] = None
    changes = list(differences(was, now))
    assert [change.partition(":")[0] for change in changes] == [
        "flags",
        "captions[0].text",
        "media",
    ]
    assert "is 'Blue.'" in changes[1]


PAGE = (ROOT / "docs/batch.md").read_text()
QUERIES = re.findall(r'duckdb\.sql\(\s*"(.*)"\s*\)', PAGE)


def test_what_the_page_has_for_pasting_runs_and_prints(
    out: Path,
    vidray: Vidray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert vidray("tables", out)[0] == 0
    monkeypatch.chdir(out.parent)
    (snippet,) = (
        block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "pandas" in block
    )
    exec(snippet, {"__name__": "pasted"})  # noqa: S102
    said = capsys.readouterr().out
    assert "truncated" in said
    assert "A red circle stays still." in said
    assert "the blue star" in said
    assert all(re.search(rf"^{name} - \w", said, re.MULTILINE) for name in SCHEMA.names)


def test_the_pages_queries_give_what_the_job_wrote(
    out: Path, vidray: Vidray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vidray("tables", out)[0] == 0
    monkeypatch.chdir(out.parent)
    frame = pandas.read_parquet("out/parts")
    assert frame.code.value_counts().to_dict() == {"truncated": 1}
    words, boxes = (duckdb.sql(query).fetchall() for query in QUERIES if "FROM rows" not in query)
    assert sorted(words) == sorted(
        (record.uri, caption.text) for record in records() for caption in record.captions
    )
    assert sum(count for _, outcome, count in boxes if outcome == "found") == 4
