"""`vidray simulate` as people run it, and once more after it was stopped."""

from pathlib import Path
from xml.etree import ElementTree

from tests.conftest import Vidray


def test_what_was_simulated_before_it_was_stopped_is_not_simulated_again(
    tmp_path: Path, vidray: Vidray
) -> None:
    command = ("simulate", "--most-gpus", "1", "--out", str(tmp_path / "out"))
    code, whole, _ = vidray(*command)
    assert code == 0
    assert whole.startswith("1 simulations")
    assert "7B on 1 GPU: " in whole
    ElementTree.fromstring((tmp_path / "out" / "scale.svg").read_text())  # noqa: S314 - our own
    kept = tmp_path / "out" / "results.jsonl"
    line = kept.read_text("utf-8")
    kept.write_text(line + line[:-20])  # killed while it wrote the next
    code, shown, _ = vidray(*command)
    assert code == 0
    assert shown.startswith("nothing to simulate")
    assert whole[whole.index("7B on H100") :] in shown
    assert kept.read_text("utf-8") == line


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, vidray: Vidray) -> None:
    (tmp_path / "file").touch()
    code, _, error = vidray("simulate", "--most-gpus", "1", "--out", str(tmp_path / "file"))
    assert code == 2
    assert "--out" in error
