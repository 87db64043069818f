"""Each limit that an operator sets holds where a client meets it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.serve.shedding import CHAT
from tests.endpoint import MODEL, TIMEOUT_S, bare_endpoint, uploaded
from tests.media_factory import Clip, make

HOST = "clips.example"


@contextmanager
def limited(folder: Path, **options: Any) -> Iterator[httpx2.Client]:
    with (
        bare_endpoint(folder / "data", **options) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        yield web


def chat(url: str, **sampling: Any) -> dict[str, Any]:
    parts = [
        {"type": "video_url", "video_url": {"url": url, **sampling}},
        {"type": "text", "text": "Why?"},
    ]
    return {"model": MODEL, "messages": [{"role": "user", "content": parts}]}


def test_an_upload_is_kept_for_as_long_as_the_operator_says(tmp_path: Path) -> None:
    clip = make(tmp_path, Clip(num_frames=6))
    with limited(tmp_path, keep_uploads_s=3_600) as web:
        kept = web.get(f"/v1/files/{uploaded(web, clip)}").json()
    assert kept["expires_at"] == kept["created_at"] + 3_600


def test_fps_are_refused_above_what_the_operator_allows(tmp_path: Path) -> None:
    clip = make(tmp_path, Clip(num_frames=6))
    with limited(tmp_path, max_fps=4.0) as web:
        refused = web.post(CHAT, json=chat(uploaded(web, clip), fps=5)).json()["error"]
    assert (refused["code"], refused["param"]) == ("above_ceiling", "fps")
    assert refused["message"] == "fps is at most 4, got 5"


def test_bodies_are_refused_above_what_the_operator_allows(tmp_path: Path) -> None:
    with limited(tmp_path, max_body_bytes=1_000) as web:
        refused = web.post(CHAT, json=chat("x" * 1_000))
        least = web.post(CHAT, json={"model": MODEL, "messages": []})
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
    assert "at most 1000 bytes" in refused.json()["error"]["message"]
    assert least.status_code == 422


@pytest.mark.parametrize(("hosts", "code"), [((), "remote_refused"), ((HOST,), "remote_failed")])
def test_the_web_is_asked_where_the_operator_lists_the_host(
    hosts: tuple[str, ...], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    resolve = socket.getaddrinfo

    def resolve_none_there(host: str, *others: Any, **more: Any) -> Any:
        if host != HOST:
            return resolve(host, *others, **more)
        asked.append(host)
        raise socket.gaierror("no such name")

    with limited(tmp_path, allow_hosts=hosts) as web:
        monkeypatch.setattr(socket, "getaddrinfo", resolve_none_there)
        refused = web.post(CHAT, json=chat(f"https://{HOST}/a.mp4")).json()["error"]
    assert refused["code"] == code
    assert bool(asked) == bool(hosts)
