"""`vidray serve` as a person starts it: a Ray of its own, a stock client, a signal."""

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from jobs.exits import Exit
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

pytestmark = pytest.mark.timeout(300)
DEADLINE_S = 120


@contextmanager
def serving(model: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address and its process, which is ended by SIGTERM."""
    command = [sys.executable, "-m", "jobs.cli", "serve", "--port", "0", "--model", str(model)]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " answers at http://127.0.0.1:" in line, line
            yield line.split(" answers at ")[1].split()[0], process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)


@pytest.mark.parametrize("flags", [(), ("--in-process",)], ids=["over Ray", "in process"])
def test_from_a_command_to_streamed_words_and_back_to_nothing(tmp_path: Path, flags: tuple[str]):
    model = write_folder(tmp_path / "tiny", max_pixels=CHUNKED_PIXELS)
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    url = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
    parts = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "Why?"}]
    log = tmp_path / "log.txt"
    with serving(model, *flags, "--quiet", f"--log-file={log}") as (address, process):
        with openai.OpenAI(base_url=f"{address}v1", api_key="none", timeout=DEADLINE_S) as client:
            chunks = list(
                client.chat.completions.create(
                    model="tiny",
                    messages=[{"role": "user", "content": parts}],
                    max_tokens=8,
                    stream=True,
                    extra_body={"vidray": {"progress": True}},
                )
            )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        told = [chunk.model_extra.get("vidray", {}) for chunk in chunks]
        stages = [each["event"] for each in told if "event" in each]
        assert text
        assert {"watching", "decoded", "encoded", "prefilled"} == set(stages)
    assert re.search(r" INFO .*/v1/chat/completions", log.read_text())  # with the time
    assert process.returncode == Exit.TERMINATED
    assert not os.path.exists(f"/proc/{process.pid}")
