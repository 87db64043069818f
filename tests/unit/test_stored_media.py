"""Videos of the operator's store: nothing is asked but what lies below a listed place."""

import asyncio
from pathlib import Path

import pytest

from jobs.serve.refusals import Refusal
from jobs.serve.stored_media import StoredMedia
from jobs.serve.uploads import Incoming
from pipeline.store.retry import RetryPolicy
from pipeline.store.s3_config import S3Config

ELSEWHERE = (
    "s3://other/clips/a.mp4", "s3://videos/a.mp4", "s3://videos/clipsa.mp4", "s3://videos/clips",
    "s3://videos/clips/", "s3://videos/clips/../secret.mp4", "s3://videos/clips/./a.mp4",
    "s3://videos/clips//a.mp4", "s3://videos//clips/a.mp4", "s3://videosclips/a.mp4", "s3://",
    "s3:///videos/clips/a.mp4", "s3://videos", "s3://127.0.0.1/clips/a.mp4", "s3://videos/clips/a\nb",
    "s3://videos/clips/a\0b", "s3://user@videos/clips/a.mp4", "s3://videos/clips/" + "a" * 3_000,
    "s3://videos/clips/\ud800",
)  # fmt: skip


@pytest.mark.parametrize("url", ELSEWHERE, ids=range(len(ELSEWHERE)))
@pytest.mark.parametrize("places", [(), ("videos/clips",)], ids=["none listed", "one listed"])
def test_what_is_not_below_a_listed_place_is_not_asked_for(
    url: str, places: tuple[str, ...], tmp_path: Path
):
    def config() -> S3Config:
        raise AssertionError(f"{url} was asked for")

    stored = StoredMedia(places=places, max_bytes=100, config=config)
    file = Incoming(tmp_path / "in", max_bytes=100)
    with pytest.raises(Refusal) as refused:
        asyncio.run(stored.fetch(url, file))
    file.discard()
    assert (refused.value.status, refused.value.code) == (422, "remote_refused")


def test_a_store_that_is_away_is_said_without_where_it_is(tmp_path: Path):
    config = S3Config(endpoint="http://127.0.0.1:9", retry=RetryPolicy(attempts=1))
    stored = StoredMedia(places=("s3://videos",), max_bytes=100, config=lambda: config)
    file = Incoming(tmp_path / "in", max_bytes=100)
    with pytest.raises(Refusal) as refused:
        asyncio.run(stored.fetch("s3://videos/a.mp4", file))
    file.discard()
    assert refused.value.code == "remote_failed"
    assert "127.0.0.1" not in refused.value.message
