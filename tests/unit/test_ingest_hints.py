"""A hint means: look now. Nothing of it is believed, and many are one."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from jobs.ingest.hints import PAUSE_S, Hints
from pipeline.store.catalogue import Catalogue
from pipeline.store.open import open_store
from tests.endpoint import TIMEOUT_S, bare_endpoint
from tests.ingest_ticks import World

FORGED = {"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": {"object": {"key": "../../x"}}}]}


def test_many_hints_are_one_until_somebody_has_looked() -> None:
    world, clock = World().at(1_800_000_060), [0.0]
    hints = Hints({"s": world.store}, clock=lambda: clock[0])
    given = []
    for _ in range(5):
        given += [hints.give("s"), hints.give("s")]
        clock[0] += PAUSE_S
    assert given == [True] + [False] * 9
    assert world.catalogue.state.number == 1
    world.ticker().run()
    clock[0] += PAUSE_S
    assert hints.give("s")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[httpx2.Client]:
    file = tmp_path / "ingest.yaml"
    file.write_text(f"nightly: {{cron: '@daily', source: s3://in/x, out: {tmp_path / 'rows'}}}")
    with (
        bare_endpoint(tmp_path / "data", schedules=file) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as client,
    ):
        yield client


def test_an_event_of_s3_is_noted_and_nothing_of_it_is_kept(
    web: httpx2.Client, tmp_path: Path
) -> None:
    for said in ("noted", "known", "known"):
        answer = web.post("/v1/ingest/nightly/notify", json=FORGED)
        assert (answer.status_code, answer.json()) == (202, {"schedule": "nightly", "hint": said})
    store = open_store(str(tmp_path / "rows"))
    assert Catalogue(store).state.hint == 1
    (entry,) = (tmp_path / "rows" / "journal").iterdir()
    assert "../x" not in entry.read_text()


def test_a_notification_that_is_none_is_refused(web: httpx2.Client, tmp_path: Path) -> None:
    assert web.post("/v1/ingest/weekly/notify", json=FORGED).status_code == 404
    assert web.post("/v1/ingest/nightly/notify", content=b"{").status_code == 400
    assert web.post("/v1/ingest/nightly/notify", content=b"[]").status_code == 422
    assert not (tmp_path / "rows").exists()
