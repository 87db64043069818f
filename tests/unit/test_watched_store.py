"""A watched store does what the store does, and says how it went."""

import io
from pathlib import Path

import pytest

from jobs.sight.job_sight import JobMeters
from jobs.sight.samples import MetricSamples
from pipeline.errors import BadInput, Transient
from pipeline.store.local import LocalStore
from pipeline.store.objects import ObjectStore


class Away(LocalStore):
    def head(self, key: str):
        raise Transient("nobody answers")


def counted(seen: JobMeters, name: str) -> dict[tuple[str, ...], float]:
    page = MetricSamples.parse(seen.meters.page().decode(), at_s=0.0)
    return {
        tuple(value for _, value in sorted(at)): value
        for at, value in page.of(name, {}).items()
        if value
    }


def test_calls_are_counted_by_what_they_were_and_how_they_ended(tmp_path: Path) -> None:
    seen = JobMeters()
    store: ObjectStore = seen.watched(LocalStore(str(tmp_path)))
    assert store.put_new("a/b", b"12345")
    assert not store.put_new("a/b", b"12345")
    assert store.get_range("a/b", start=1, stop=3) == b"23"
    buffer = io.BytesIO()
    assert store.spool("a/b", buffer, max_bytes=10).size_bytes == 5
    assert [info.key for info in store.scan("a/")] == ["a/b"]
    with pytest.raises(BadInput):
        store.head("none")
    with pytest.raises(Transient):
        seen.watched(Away(str(tmp_path))).head("a/b")
    assert counted(seen, "vidray_store_calls_total") == {
        ("ok", "put"): 2,
        ("ok", "get"): 2,
        ("ok", "list"): 1,
        ("refused", "head"): 1,
        ("failed", "head"): 1,
    }
    assert counted(seen, "vidray_store_bytes_total") == {("put",): 10, ("get",): 7}
    assert store.uri == str(tmp_path)
