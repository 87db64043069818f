"""`vidray serve` over vLLM as a person starts it: the words of our own engine, and nothing left."""

import base64
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from actors.vllm.leftovers import shared_files
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder
from tests.vllm.profiles import SHAPE, vllm_profile

pytestmark = pytest.mark.timeout(600)
DEADLINE_S = 200
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@contextmanager
def serving(model: Path, *flags: str) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "jobs.cli", "serve", "--port", "0", "--model", str(model)]
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " answers at http://127.0.0.1:" in line, line
            yield line.split(" answers at ")[1].split()[0], psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)


def answer(address: str, body: dict[str, Any]) -> str:
    request = urllib.request.Request(  # noqa: S310 - on this machine
        f"{address}v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:  # noqa: S310
        said: str = json.load(reply)["choices"][0]["message"]["content"]
    return said


def test_answers_over_http_are_those_of_our_own_engine(tmp_path: Path):
    model = write_folder(tmp_path / "tiny", SHAPE, max_pixels=CHUNKED_PIXELS)
    clip = make(tmp_path, Clip(num_frames=24, **CHUNKED))
    url = f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
    schema = {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA}}
    asked: list[dict[str, Any]] = [
        {
            "model": "tiny",
            "temperature": 0,
            "max_tokens": 24,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video_url", "video_url": {"url": url}},
                        {"type": "text", "text": text},
                    ],
                }
            ],
            **more,
        }
        for text in ("Why?", "What moves?", "How many?")
        for more in ({}, {"response_format": schema})
    ]
    profile = tmp_path / "vllm.yaml"
    profile.write_text(
        yaml.safe_dump(vllm_profile(kv_tokens=8_192, question_tokens=1_024).model_dump(mode="json"))
    )
    said: list[list[str]] = []
    for flags in (["--in-process"], ["--profile", str(profile)]):
        with serving(model, *flags, "--quiet") as (address, process):
            with ThreadPoolExecutor(len(asked)) as clients:
                said.append(list(clients.map(partial(answer, address), asked)))
            for each in process.children(recursive=True):
                assert not shared_files(each.pid)  # or they would stay, since Ray kills them
    ours, theirs = said
    assert theirs == ours
    assert all(ours)
