"""Clients that are not in the dev extra, each in a venv of its own; skipped where there is none.

VIDRAY_CLIENTS names a folder of venvs: openai2, litellm, langchain.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.models import DEMO_MODEL
from tests.end_to_end.test_serve import serving

FOLDER = Path(os.environ.get("VIDRAY_CLIENTS", "/nowhere"))
SCRIPT = Path(__file__).parents[1] / "stock_clients.py"
CLIP = Path(__file__).parents[2] / "jobs" / "serve" / "page" / "example.mp4"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not FOLDER.is_dir(), reason="VIDRAY_CLIENTS names no folder of venvs"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(DEMO_MODEL, "--in-process") as (address, _):
        yield address


@pytest.mark.parametrize("client", ["openai2", "litellm", "langchain"])
def test_a_stock_client_is_answered(address: str, client: str):
    python = FOLDER / client / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there")
    result = subprocess.run(
        [python, SCRIPT, client.rstrip("2"), f"{address}v1", CLIP],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
