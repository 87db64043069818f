"""`import vidray`: README's example runs, and what has a name there is what it says."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vidray
from jobs.demo.demo_archive import make_archive
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

ROOT = Path(__file__).parents[2]


def test_readmes_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (example,) = (block for block in blocks if "import vidray" in block)
    ((clip, _),) = make_archive(tmp_path, 1, seed=3)
    monkeypatch.chdir(ROOT)
    exec(example.replace('"clip.mp4"', repr(str(clip))), {"__name__": "readme"})  # noqa: S102
    caption, *_ = capsys.readouterr().out.splitlines()
    assert len(caption.split()) > 3


def test_a_program_in_one_process_never_loads_ray() -> None:
    program = "import sys, vidray; assert all(map(vidray.__dict__.get, vidray.__all__)); " + (
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_a_bad_file_is_a_record_for_analyse_and_an_error_for_a_session(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is no video")
    good = make(tmp_path, Clip(num_frames=12))

    async def work(videos: vidray.Videos) -> None:
        record = await videos.analyse(bad)
        assert (record.status, record.code) == ("failed", vidray.FailureCode.NOT_A_VIDEO)
        with pytest.raises(vidray.BadInput):
            async with videos.session(bad):
                pass
        assert (await videos.analyse(good)).video_id != record.video_id

    with vidray.open_local(write_folder(tmp_path / "model")) as videos:
        asyncio.run(work(videos))
