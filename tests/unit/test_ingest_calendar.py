"""Ticks of a calendar: each set time once a day, whatever clocks do there."""

import io
import struct
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from jobs.ingest.calendar import NICKNAMES, Calendar, find_zone


def time_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def local(calendar: Calendar, start: str, count: int) -> list[str]:
    """The next ticks as the zone's clocks show them, with their offset."""
    found = islice(calendar.after(time_s(start)), count)
    return [f"{datetime.fromtimestamp(each, calendar.zone):%m-%d %H:%M%z}" for each in found]


def test_a_time_that_the_autumn_night_has_twice_runs_once() -> None:
    nightly = Calendar("30 1 * * *", find_zone("America/New_York"))
    assert local(nightly, "2026-10-31T12:00Z", 3) == [
        "11-01 01:30-0400",
        "11-02 01:30-0500",
        "11-03 01:30-0500",
    ]


def test_a_time_that_the_spring_night_lacks_runs_once_at_the_next_minute() -> None:
    nightly = Calendar("30 2 * * *", find_zone("America/New_York"))
    assert local(nightly, "2026-03-07T12:00Z", 2) == ["03-08 03:00-0400", "03-09 02:30-0400"]
    twice = Calendar("0,30 2 * * *", find_zone("America/New_York"))
    assert local(twice, "2026-03-07T12:00Z", 3) == [
        "03-08 03:00-0400",
        "03-09 02:00-0400",
        "03-09 02:30-0400",
    ]


@pytest.mark.parametrize("minutes", range(0, 180, 10))
def test_whoever_looks_within_the_fold_finds_no_tick_twice(minutes: int) -> None:
    nightly = Calendar("30 1 * * *", find_zone("America/New_York"))
    start_s = time_s("2026-11-01T04:30Z") + 60 * minutes
    first_s = time_s("2026-11-01T05:30Z")  # the first 01:30
    second_s = time_s("2026-11-02T06:30Z")
    assert next(nightly.after(start_s)) == (first_s if start_s < first_s else second_s)
    assert nightly.newest(start_s) == [first_s if start_s >= first_s else first_s - 86_400]


def test_half_an_hour_of_lord_howe_is_no_whole_one() -> None:
    zone = find_zone("Australia/Lord_Howe")
    assert local(Calendar("15 2 * * *", zone), "2026-10-03T00:00Z", 2) == [
        "10-04 02:30+1100",
        "10-05 02:15+1100",
    ]
    assert local(Calendar("45 1 * * *", zone), "2026-04-04T00:00Z", 2) == [
        "04-05 01:45+1100",
        "04-06 01:45+1030",
    ]


def test_what_runs_all_day_goes_on_by_real_time() -> None:
    zone = find_zone("Australia/Lord_Howe")
    found = list(islice(Calendar("*/30 * * * *", zone).after(time_s("2026-04-04T13:00Z")), 9))
    assert {later - earlier for earlier, later in zip(found, found[1:], strict=False)} == {1800}


def test_the_twenty_ninth_of_february_comes_in_leap_years() -> None:
    leap = Calendar("0 12 29 2 *")
    found = [datetime.fromtimestamp(each, UTC).year for each in islice(leap.after(0), 3)]
    assert found == [1972, 1976, 1980]
    assert leap.newest(time_s("2026-11-28T00:00Z")) == [time_s("2024-02-29T12:00Z")]
    assert leap.newest(time_s("2026-11-28T00:00Z"), 2)[0] == time_s("2020-02-29T12:00Z")


@pytest.mark.parametrize("name", NICKNAMES)
def test_nicknames_are_the_times_they_stand_for(name: str) -> None:
    start_s = time_s("2026-11-28T10:10Z")
    assert next(Calendar(name).after(start_s)) == next(Calendar(NICKNAMES[name]).after(start_s))


@pytest.mark.parametrize(
    "wrong",
    [
        *("0 0 30 2 *", "0 0 31 4,6,9,11 *", "@reboot", "* * * *", "0 * * * * *", "61 * * * *"),
        *("0 0 * 2 MON#6", "* * * * MON#1/2", "", "every day"),
    ],
)
def test_what_never_comes_or_is_no_time_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no time|fields|is none of|never"):
        Calendar(wrong)


def test_an_unknown_zone_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match="did you mean Europe/Berlin"):
        find_zone("Europe/Berln")


def zone_at(hours: int, *, until: str, then: int) -> ZoneInfo:
    """A zone whose rules change once."""
    at = struct.pack(">q", int(time_s(until)))
    kinds = b"".join(struct.pack(">lbb", offset * 3600, 0, 0) for offset in (hours, then))

    def block(version: bytes, times: bytes, indices: bytes) -> bytes:
        counts = struct.pack(">6l", 0, 0, 0, len(indices), 2, 4)
        return b"TZif" + version + bytes(15) + counts + times + indices + kinds + b"XXX\0"

    return ZoneInfo.from_file(
        io.BytesIO(block(b"2", b"", b"") + block(b"2", at, b"\1") + b"\n\n"), key=f"zone{then}"
    )


def test_after_a_change_of_a_zones_rules_no_instant_comes_again_and_none_before_the_last() -> None:
    before = Calendar("30 1 * * *", zone_at(1, until="2030-01-01T00:00Z", then=1))
    after = Calendar("30 1 * * *", zone_at(1, until="2026-06-10T12:00Z", then=3))
    last_s = before.newest(time_s("2026-06-11T12:00Z"))[0]
    assert last_s == time_s("2026-06-11T00:30Z")
    # By the new rules that day's tick was at 22:30 of the day before; it is not run again.
    assert next(after.after(last_s)) == time_s("2026-06-11T22:30Z")
