"""When ticks are due: cron expressions in a time zone, as instants in UTC."""

import difflib
import zoneinfo
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from itertools import takewhile

from cronsim import CronSim, CronSimError

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_BACK_S = [60 * 4**power for power in range(12)]  # a minute to 31 years
_YEAR_ONE_S = 946_684_800  # 2000: before anything that is ever asked for


@dataclass(frozen=True)
class Calendar:
    """A cron expression of five fields, or a nickname, and the zone whose clocks it speaks of.

    What is set for a fixed time runs once a day: the first time where clocks are put back over it,
    at the next minute there is where they are put forward. ValueError for what never comes.
    """

    cron: str
    zone: tzinfo = UTC

    def __post_init__(self) -> None:
        if self._fields.startswith("@"):
            raise ValueError(f"{self.cron!r} is none of {', '.join(NICKNAMES)}")
        if len(self._fields.split()) != 5:
            raise ValueError(f"{self.cron!r} has not five fields, as in '30 1 * * *'")
        try:
            next(CronSim(self._fields, datetime(2000, 1, 1, tzinfo=UTC)))
        except (CronSimError, AssertionError) as error:
            raise ValueError(f"{self.cron!r} is no time: {error}") from error
        except StopIteration:
            raise ValueError(f"{self.cron!r} never comes") from None

    def after(self, time_s: float) -> Iterator[int]:
        """Every instant later than this one, in order, for ever; all are Unix time."""
        start = datetime.fromtimestamp(time_s, UTC)
        last_s = time_s
        for moment in CronSim(self._fields, start.astimezone(self.zone)):
            # A clock put back shows a time again, and one put forward makes two times one.
            if (moment_s := int(moment.timestamp())) > last_s:
                last_s = moment_s
                yield moment_s

    def between(self, start_s: float, stop_s: float) -> Iterator[int]:
        """Later than start_s and not later than stop_s."""
        return takewhile(lambda moment_s: moment_s <= stop_s, self.after(start_s))

    def newest(self, now_s: float, count: int = 1) -> list[int]:
        """The last so many that are not later than now, in order."""
        found: deque[int] = deque(maxlen=count)
        for back_s in _BACK_S:
            start_s = max(now_s - back_s * count, _YEAR_ONE_S)
            found = deque(self.between(start_s, now_s), maxlen=count)
            if len(found) == count:
                break
        return list(found)

    @cached_property
    def _fields(self) -> str:
        return NICKNAMES.get(self.cron.strip().lower(), self.cron.strip())


def find_zone(name: str) -> tzinfo:
    """ValueError for one that the time zone database does not have."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ", as in Europe/Berlin"
        raise ValueError(f"{name!r} is no time zone{hint}") from None
