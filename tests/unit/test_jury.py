"""No innocent row: a video is failed for what others get through, and for nothing else."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import pytest

from jobs.batch.jury import MAX_AGAINST, Jury
from jobs.batch.troubled_folders import TroubledFolders
from pipeline.errors import FailureCode, Outage
from pipeline.store import slots
from pipeline.store.items import Item
from pipeline.store.slots import Slots
from pipeline.tasks.records import Record
from tests.report_rows import bad_row, good_row
from tests.virtual_time import run_virtually

PATIENCE_S = 600.0
ENVIRONMENTAL = [code for code in FailureCode if code.blame != "video"]
ITEMS = [Item(uri=f"/clips/{number}.mp4", size_bytes=100 + number) for number in range(12)]
Outcome = Callable[[Item, float], FailureCode | None]


class World:
    """A store and a fleet in which every try takes a second, and `outcome` says what comes of it.

    outcome: of the item and the second at which it is tried.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.tries: Counter[str] = Counter()
        self.told: list[str] = []

    async def make_row(self, item: Item) -> Record:
        self.tries[item.uri] += 1
        code = self._outcome(item, asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        row = good_row() if code is None else replace(bad_row(0), code=code, detail="why")
        return replace(row, video_id=item.video_id, uri=item.uri)

    def run(
        self,
        items: Collection[Item] = ITEMS,
        *,
        num_at_once: int = 4,
        give_up: Collection[str] = (),
        witnesses: Iterable[Item] = (),
    ) -> dict[str, str | None]:
        """The rows' codes by uri; what stops the job is raised."""

        async def drive() -> list[Record]:
            places = Slots(num_at_once)
            jury = Jury(
                self.make_row,
                slots=places,
                patience_s=PATIENCE_S,
                give_up=give_up,
                witnesses=witnesses,
                told=self.told.append,
            )
            rows: list[Record] = []
            left = iter(items)

            async def work() -> None:
                while True:
                    await places.take()
                    if (item := next(left, None)) is not None:
                        rows.append(await jury.make_row(item))
                    places.leave()
                    if item is None:
                        return

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(places.max_begun):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
            return rows

        return {row.uri: row.code for row in run_virtually(drive())}


ALL_GOOD = dict.fromkeys((item.uri for item in ITEMS), None)


@pytest.mark.parametrize("code", [code for code in FailureCode if code.blame == "video"])
def test_what_is_in_the_video_is_its_row_at_once(code: FailureCode) -> None:
    world = World(lambda item, now_s: code)
    assert set(world.run().values()) == {code}
    assert set(world.tries.values()) == {1}


@pytest.mark.parametrize("code", ENVIRONMENTAL)
@pytest.mark.parametrize("place", [0, 5, 11], ids=["first", "amid", "last"])
@pytest.mark.parametrize("num_at_once", [1, 4])
def test_one_that_always_fails_beside_others_is_its_row_and_blocks_nobody(
    code: FailureCode, place: int, num_at_once: int
) -> None:
    bad = ITEMS[place]
    world = World(lambda item, now_s: code if item is bad else None)
    assert world.run(num_at_once=num_at_once, witnesses=ITEMS) == ALL_GOOD | {bad.uri: code}
    assert world.tries[bad.uri] >= MAX_AGAINST
    assert world.told == []


@pytest.mark.parametrize("code", ENVIRONMENTAL)
@pytest.mark.parametrize("begins_s", [0, 2])
def test_an_outage_that_ends_within_the_patience_costs_time_only(
    code: FailureCode, begins_s: float
) -> None:
    world = World(lambda item, now_s: code if begins_s <= now_s < begins_s + 300 else None)
    assert world.run() == ALL_GOOD
    assert world.told[0].startswith(f"the {code.blame} fails whatever it is asked")
    assert world.told[-1] == ""
    assert sum(world.tries.values()) < 5 * len(ITEMS)  # it is not knocked on all the time


@pytest.mark.parametrize("code", ENVIRONMENTAL)
@pytest.mark.parametrize("begins_s", [0, 2])
def test_an_outage_that_stays_stops_the_job_and_says_what_is_broken(
    code: FailureCode, begins_s: float
) -> None:
    world = World(lambda item, now_s: code if now_s >= begins_s else None)
    with pytest.raises(Outage) as stopped:
        world.run()
    said = str(stopped.value)
    assert f"the {code.blame} fails" in said
    assert f"{code}: why (/clips/" in said
    assert f"--give-up {code}" in said


@pytest.mark.parametrize("code", ENVIRONMENTAL)
def test_a_video_alone_is_not_condemned(code: FailureCode) -> None:
    """Nobody is there to tell it from an outage."""
    world = World(lambda item, now_s: code)
    with pytest.raises(Outage):
        world.run(ITEMS[:1])


@pytest.mark.parametrize("code", ENVIRONMENTAL)
def test_a_video_that_got_through_before_tells_a_bad_last_one_from_an_outage(
    code: FailureCode,
) -> None:
    last, before = ITEMS[0], ITEMS[1]
    world = World(lambda item, now_s: code if item is last else None)
    assert world.run([last], witnesses=[before]) == {last.uri: code}
    world = World(lambda item, now_s: code if now_s < 100 else None)
    assert world.run([last], witnesses=[before]) == {last.uri: None}


def test_many_that_crash_the_decoder_in_a_row_are_told_from_a_broken_fleet() -> None:
    code, good = FailureCode.DECODER_CRASH, {ITEMS[0].uri, ITEMS[11].uri}
    world = World(lambda item, now_s: None if item.uri in good else code)
    assert world.run() == {uri: None if uri in good else code for uri in ALL_GOOD}


def test_a_store_that_refuses_many_in_a_row_is_waited_for_though_it_serves_others() -> None:
    """As where a policy for one folder is wrong: no row of theirs is made while that may pass."""
    denied = {item.uri for item in ITEMS[:6]}

    def outcome(item: Item, now_s: float) -> FailureCode | None:
        return FailureCode.FORBIDDEN if item.uri in denied and now_s < 120 else None

    assert World(outcome).run(witnesses=[ITEMS[8]]) == ALL_GOOD


FOLDERS = [Item(uri=f"/{folder}/{number}.mp4") for number in range(8) for folder in "ab"]
OF_THE_STORE = [code for code in FailureCode if code.blame == "store"]


@pytest.mark.parametrize("code", OF_THE_STORE)
@pytest.mark.parametrize("num_at_once", [1, 2, 4, 8])
def test_a_folder_that_is_away_for_a_while_costs_time_only_though_others_are_served(
    code: FailureCode, num_at_once: int
) -> None:
    def outcome(item: Item, now_s: float) -> FailureCode | None:
        return code if item.uri.startswith("/b/") and now_s < 40 else None

    world = World(outcome)
    assert set(world.run(FOLDERS, num_at_once=num_at_once).values()) == {None}
    assert "the store serves others and none of /b, which may come back" in "; ".join(world.told)
    assert world.told[-1] == ""
    assert sum(world.tries.values()) < 4 * len(FOLDERS)


@pytest.mark.parametrize("num_at_once", [1, 4])
@pytest.mark.parametrize("place", [0, 5, 12], ids=["first", "amid", "last"])
def test_the_only_video_of_a_folder_that_is_away_for_a_while_has_its_row(
    place: int, num_at_once: int
) -> None:
    """It is set aside; that others are served meanwhile says nothing of it."""
    alone, began = Item(uri="/b/0.mp4"), list[str]()

    def outcome(item: Item, now_s: float) -> FailureCode | None:
        began.append(item.uri)
        return FailureCode.NOT_FOUND if item is alone and now_s < 30 else None

    items = [*ITEMS[:place], alone, *ITEMS[place:]]
    rows = World(outcome).run(items, num_at_once=num_at_once, witnesses=items)
    assert rows == ALL_GOOD | {alone.uri: None}
    assert began[-1] == alone.uri  # all others went on


@pytest.mark.parametrize("num_at_once", [1, 4])
@pytest.mark.parametrize("num_gone", [1, 2, 5])
def test_videos_that_are_gone_with_their_folders_are_rows_at_the_end_of_the_job(
    num_gone: int, num_at_once: int
) -> None:
    gone = [Item(uri=f"/{number}/gone.mp4") for number in range(num_gone)]
    items = [each for pair in zip(ITEMS, gone, strict=False) for each in pair] + ITEMS[num_gone:]
    last_s = list[float]()

    def outcome(item: Item, now_s: float) -> FailureCode | None:
        last_s.append(now_s)
        return FailureCode.NOT_FOUND if item in gone else None

    rows = World(outcome).run(items, num_at_once=num_at_once)
    assert rows == ALL_GOOD | {item.uri: FailureCode.NOT_FOUND for item in gone}
    assert PATIENCE_S / 10 <= max(last_s) < PATIENCE_S / 5


@pytest.mark.parametrize("code", OF_THE_STORE)
def test_two_that_are_gone_beside_others_of_their_folder_are_rows(code: FailureCode) -> None:
    gone, ended_s = {ITEMS[4].uri, ITEMS[5].uri}, list[float]()

    def outcome(item: Item, now_s: float) -> FailureCode | None:
        ended_s.append(now_s)
        return code if item.uri in gone else None

    rows = World(outcome).run([*ITEMS, *FOLDERS], witnesses=ITEMS)
    assert {uri for uri, of in rows.items() if of == code} == gone
    assert max(ended_s) < PATIENCE_S / 5


def test_a_folder_that_stays_away_is_waited_for_no_longer_than_that() -> None:
    now_s = 0.0
    folders = TroubledFolders(patience_s=PATIENCE_S, clock=lambda: now_s)
    for uri in ("/b/1.mp4", "/b/2.mp4"):
        folders.failed(uri, passed_s=0.0)
    assert folders.wait_s(uri, since_s=0.0) > 0
    assert folders.waited_for == "the store serves others and none of /b, which may come back"
    now_s = PATIENCE_S / 10
    assert folders.wait_s(uri, since_s=0.0) == 0
    assert folders.waited_for == ""


@pytest.mark.parametrize("code", OF_THE_STORE)
def test_a_folder_that_stays_away_stops_the_job_as_a_store_does(code: FailureCode) -> None:
    many = [Item(uri=f"/{folder}/{number}.mp4") for number in range(50) for folder in "ab"]
    with pytest.raises(Outage, match=f"--give-up {code}"):
        World(lambda item, now_s: code if item.uri.startswith("/b/") else None).run(many)


@pytest.mark.parametrize("given_up", [{FailureCode.FORBIDDEN}, set(FailureCode)])
def test_codes_that_are_given_up_are_rows_at_once(given_up: set[str]) -> None:
    world = World(lambda item, now_s: FailureCode.FORBIDDEN)
    assert set(world.run(give_up=given_up).values()) == {FailureCode.FORBIDDEN}
    assert set(world.tries.values()) == {1}


def test_a_witness_that_is_gone_itself_is_not_believed() -> None:
    witness, last = ITEMS[1], ITEMS[0]

    def outcome(item: Item, now_s: float) -> FailureCode | None:
        if item is witness:
            return FailureCode.SOURCE_CHANGED
        return FailureCode.DECODE_TIMEOUT if now_s < 60 else None

    world = World(outcome)
    assert world.run([last], witnesses=[witness]) == {last.uri: None}
    assert world.tries[witness.uri] == 1


def test_a_witness_that_fails_in_its_own_turn_is_no_witness_of_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "MAX_ASIDE", 0)  # its own turn comes after the first one's
    first, witness = ITEMS[:2]
    seen: list[Item] = []

    def outcome(item: Item, now_s: float) -> FailureCode | None:
        seen.append(item)
        is_good = item is witness and seen.count(witness) < MAX_AGAINST
        return None if is_good else FailureCode.DECODER_CRASH

    with pytest.raises(Outage):
        World(outcome).run([first, witness], num_at_once=1, witnesses=[witness])


def test_videos_that_were_fetched_before_an_outage_condemn_nobody_in_it() -> None:
    """Their analyses go on and end well while the store refuses everybody else."""
    outage = (1.5, 200.0)

    async def drive() -> dict[str, str | None]:
        async def make_row(item: Item) -> Record:
            now_s = asyncio.get_running_loop().time()
            is_denied = outage[0] <= now_s < outage[1]
            await asyncio.sleep(0.1 if is_denied else 1 + 3 * ITEMS.index(item))
            row = bad_row(0) if is_denied else good_row()
            code = FailureCode.FORBIDDEN if is_denied else None
            return replace(row, video_id=item.video_id, uri=item.uri, code=code)

        jury = Jury(make_row, slots=Slots(6), patience_s=PATIENCE_S)
        left = iter(ITEMS)

        async def work() -> list[Record]:
            return [await jury.make_row(item) for item in left]

        rows = await asyncio.gather(*(work() for _ in range(6)))
        return {row.uri: row.code for each in rows for row in each}

    assert run_virtually(drive()) == ALL_GOOD
