"""The wheel holds all that vidray needs: installed, it works from any folder."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas
import pytest

from jobs.demo.demo_archive import make_archive

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
SOURCES = (
    *("actors", "deploy", "jobs", "pipeline", "vidray.py"),
    *("pyproject.toml", "README.md", "LICENSE"),
)


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools would leave its own beside the sources."""
    copy, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        source = ROOT / name
        copied = shutil.copytree if source.is_dir() else shutil.copy
        copied(source, copy / name)
    build = ("pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, "-m", *build, "-w", built, copy, folder=copy)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, and with the libraries of this one."""
    environment = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", environment, folder=environment)
    python = environment / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "-q"),
        *("--no-deps", "--no-index", wheel),
        folder=environment,
    )
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    where = run(python, "-c", "import jobs; print(jobs.__file__)", folder=environment)
    assert Path(where.strip()).is_relative_to(packages)
    return environment / "bin"


def test_the_demo_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "vidray", "demo", "--clips", "2", folder=tmp_path)
    assert "report.html" in said
    assert (tmp_path / "out" / "demo" / "report.html").is_file()


def test_a_job_runs_from_any_folder_on_a_profile_by_name(installed: Path, tmp_path: Path) -> None:
    make_archive(tmp_path / "clips", 2, seed=0)
    where = "from jobs.models import DEMO_MODEL; print(DEMO_MODEL)"
    model = run(installed / "python", "-c", where, folder=tmp_path).strip()
    job = ("batch", "run", "clips", "rows", "--model", model, "--profile", "laptop")
    run(installed / "vidray", *job, folder=tmp_path)
    assert [*pandas.read_parquet(tmp_path / "rows" / "parts").status] == ["ok", "ok"]


def test_profiles_and_version_are_there(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "vidray", "--version", folder=tmp_path).startswith("vidray ")
    assert "num_gpus: 0.7" in run(
        installed / "vidray", "profile", "show", "gpu1-7b", folder=tmp_path
    )


def test_programs_import_it_from_any_folder(installed: Path, tmp_path: Path) -> None:
    program = "import vidray; print(vidray.open_local.__name__)"
    assert run(installed / "python", "-c", program, folder=tmp_path).strip() == "open_local"
