"""Copies of videos: where they are kept, and that they are gone when their driver is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.store.archive import Archive
from pipeline.store.copies import copies_folder
from pipeline.store.items import Item
from tests.stores import MemoryStore

DRIVER = """
import signal, sys
from pathlib import Path
from pipeline.store.copies import copies_folder

with copies_folder(sys.argv[2], parent=Path(sys.argv[1])) as folder:
    Path(folder, "video-1").write_bytes(b"half a video")
    print(folder, flush=True)
    signal.pause()
"""


def start_driver(parent: Path, job_id: str) -> tuple["subprocess.Popen[str]", Path]:
    command = [sys.executable, "-c", DRIVER, str(parent), job_id]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return driver, Path(driver.stdout.readline().strip())


def end(driver: "subprocess.Popen[str]", number: int) -> None:
    driver.send_signal(number)
    driver.communicate(timeout=60)
    assert driver.returncode == -number


def test_copies_of_a_killed_driver_are_swept_by_the_next_one_on_its_job(tmp_path: Path) -> None:
    killed, its_folder = start_driver(tmp_path, "job")
    living, other_folder = start_driver(tmp_path, "job")
    try:
        end(killed, signal.SIGKILL)
        assert (its_folder / "video-1").exists()
        with copies_folder("another", parent=tmp_path):
            assert its_folder.exists()
        with copies_folder("job", parent=tmp_path) as own:
            assert not its_folder.exists()
            assert (other_folder / "video-1").exists()
            assert Path(own).name.startswith("vidray-job-")
    finally:
        end(living, signal.SIGKILL)
    with copies_folder("job", parent=tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_drivers_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "vidray-job-file").touch()
    (tmp_path / "vidray-job-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lock").touch()
    (tmp_path / "vidray-job-half").mkdir()  # whoever made it died before it had locked it
    kept = tmp_path / "vidray-job-filled" / "by somebody"
    kept.mkdir(parents=True)
    with copies_folder("job", parent=tmp_path):
        pass
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"vidray-job-file", "vidray-job-link", "elsewhere", "vidray-job-filled"}
    assert (tmp_path / "elsewhere" / "lock").exists()
    assert kept.exists()


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with (
        pytest.raises(ConfigError, match=f"{missing}: No such file"),
        copies_folder("job", parent=missing),
    ):
        pass


def test_a_copy_is_on_the_disk_and_closed_before_it_is_lent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it may be on another machine."""
    store, synced, fsync = MemoryStore(), [], os.fsync
    store.put_new("clip.mp4", b"a video")
    archive = Archive(folder=str(tmp_path), max_bytes=100)
    monkeypatch.setattr(archive, "_store", lambda uri: store)

    def told(handle: int) -> None:
        fsync(handle)
        synced.append((os.fstat(handle).st_ino, os.fstat(handle).st_size))

    monkeypatch.setattr(os, "fsync", told)
    with archive.open(Item(uri="s3://bucket/clip.mp4")) as copy:
        assert synced == [(os.stat(copy.path).st_ino, len(b"a video"))]
        held = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert copy.path not in held
