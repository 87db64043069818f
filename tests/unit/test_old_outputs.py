"""Outputs live for years: every command reads the rows of every released schema.

tests/outputs/schema-1 was made by `vidray batch run /clips/list.jsonl OUT --in-process --ask "What
colour is it?" --videos-per-part 2`, at schema 1, with a list of two clips and one that is missing.
schema-1-tables by 0.1.0's `vidray batch run /clips /rows --in-process --videos-per-part 2 --fps 8
--ask "Is it red?" --choices yes,no --ground "the cyan square" --ground "the green star"` and
`vidray tables /rows`, with three clips and an empty file.
"""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.models import DEMO_MODEL
from pipeline.store.local import LocalStore
from pipeline.store.rows import read_rows
from pipeline.tasks.records import SCHEMA, SCHEMA_VERSION, from_table, to_table
from tests.job_rows import commit_job

OUTPUTS = Path(__file__).parents[1] / "outputs"


@pytest.fixture
def run(monkeypatch, capsys):
    """A command's exit code and what it says."""

    def invoke(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["vidray", *map(str, arguments)])
        code = int(cli._run())
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return invoke


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OUTPUTS / "schema-1", tmp_path / "out"))


@pytest.fixture
def its_model(tmp_path: Path) -> Path:
    """The model that made it, to the byte of its config.json: what vidray and transformers want
    to be said in there came later."""
    folder = shutil.copytree(DEMO_MODEL, tmp_path / "vidray-demo")
    config = json.loads((folder / "config.json").read_text())
    del config["vidray"]
    config["vision_config"]["mlp_ratio"] = 3.0
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return Path(folder)


def test_every_command_reads_rows_of_schema_1(run, output: Path, tmp_path: Path) -> None:
    code, said = run("show", output)
    assert (code, len(said.splitlines())) == (0, 3)
    code, said = run("show", output, "clip-000.mp4")
    assert code == 0
    assert "What is there?" in said
    code, said = run("show", output, "--json")
    assert [json.loads(line)["extra"] for line in said.splitlines()] == [{}, {}, {}]
    code, said = run("batch", "status", output)
    assert code == 3
    assert "3 of 3, 1 failed: 1 not_found" in said
    assert run("fsck", output)[0] == 3
    code, said = run("tables", output)
    assert code == 0
    assert "answers/*.parquet: 3 rows" in said
    assert run("report", output, "--page", tmp_path / "page.html")[0] == 0
    assert "clip-001.webm" in (tmp_path / "page.html").read_text()


def test_an_output_of_0_1_0_is_kept_cleaned_and_mended(run, tmp_path: Path) -> None:
    output = Path(shutil.copytree(OUTPUTS / "schema-1-tables", tmp_path / "out"))
    code, said = run("show", output, "clip-000.mp4")
    assert code == 0
    assert "  Is it red?: no" in said
    assert re.search(r"  find the cyan square at [\d.]+ s: \(\d+, \d+\) to \(\d+, \d+\)", said)
    assert run("report", output, "--page", tmp_path / "page.html")[0] == 0
    derived = {path: path.read_bytes() for path in output.glob("tables/*/*")}
    assert len(derived) == 6
    code, said = run("tables", output)
    assert (code, "boxes/*.parquet: 6 rows" in said) == (0, True)
    assert {path: path.read_bytes() for path in output.glob("tables/*/*")} == derived

    assert run("batch", "status", output)[0] == 3
    os.utime(output / "probe", (0, 0))
    code, said = run("fsck", output, "--clean")
    assert (code, "not in the plan: probe, 56 bytes, deleted" in said) == (3, True)
    with (output / "parts/part-00001.parquet").open("r+b") as part:
        part.truncate(1000)
    assert run("fsck", output, "--repair")[0] == 1
    code, said = run("fsck", output)
    assert (code, "2 of 4 rows are sound\nnot finished: 1 of 2 parts" in said) == (1, True)
    assert run("show", output)[1].count("\n") == 2


def test_a_row_of_schema_1_can_be_made_again(run, output: Path, its_model: Path) -> None:
    code, said = run("replay", output, "missing.mp4", "--model", its_model)
    changes = [line for line in said.splitlines() if line.startswith("extra")]
    assert code in (0, 1), said  # 1: the version of vidray, once that is another
    assert changes == []
    assert "missing.mp4: " in said


def test_a_job_begun_under_another_schema_is_not_gone_on_with(
    run, output: Path, its_model: Path, tmp_path: Path
) -> None:
    source = tmp_path / "list.jsonl"  # where the job was made, its list lay elsewhere
    source.touch()
    plan = json.loads((output / "plan.json").read_text())
    plan["spec"]["source"] = str(source)
    (output / "plan.json").write_text(json.dumps(plan))
    (output / "_SUCCESS.json").unlink()
    (output / "parts" / "part-00001.parquet").unlink()
    again = ("batch", "run", source, output, "--in-process", "--videos-per-part", 2)
    code, said = run(*again, "--ask", "What colour is it?", "--model", its_model)
    assert code == 2
    assert f"whose rows have schema 1; this vidray writes schema {SCHEMA_VERSION}" in said
    assert run("show", output)[0] == 0
    assert len(list((output / "parts").iterdir())) == 1


def test_rows_of_a_later_schema_are_refused_by_name(run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    commit_job(LocalStore(str(out)))
    later = str(SCHEMA_VERSION + 1)
    for part in (out / "parts").iterdir():
        table = pq.read_table(part)
        marks = table.schema.metadata | {b"vidray.schema": later.encode()}
        part.chmod(0o644)
        pq.write_table(table.replace_schema_metadata(marks), part)
    for command, code in ((("show", out), 1), (("report", out, "--page", tmp_path / "p"), 2)):
        assert run(*command)[0] == code
        said = run(*command)[1]
        assert f"rows of schema {later}; this vidray reads 1 to {SCHEMA_VERSION}" in said


def test_extra_columns_come_back_from_the_table() -> None:
    store = LocalStore(str(OUTPUTS / "schema-1"))
    old = [record for rows in read_rows(store) for record in from_table(rows)]
    assert len(old) == 3
    told = [replace(record, extra={"label": "cat"}) for record in old]
    assert to_table(told).schema == SCHEMA
    assert from_table(to_table(told)) == told
