"""Videos made again: what failed in a finished job, each time as a job of its own in its output.

OUT/retries/0001/ has a plan, parts and a success marker as OUT itself has. A row there takes the
place of the same video's in OUT/parts, which stays as it was committed: no reader ever finds a part
changed, or a video twice, under parts/. Of several the newest counts.
"""

import re
from dataclasses import dataclass

from pipeline.store.below import Below
from pipeline.store.job_plan import PLAN_KEY
from pipeline.store.objects import ObjectStore

RETRY_PREFIX = "retries/"


@dataclass(frozen=True, slots=True)
class Retry:
    """One of them, by its number from 1."""

    store: ObjectStore
    number: int


def nth_retry(store: ObjectStore, number: int) -> Retry:
    """Whether or not it has been begun."""
    return Retry(Below(store, f"{RETRY_PREFIX}{number:04d}/"), number)


def find_retries(store: ObjectStore) -> list[Retry]:
    """All that were begun, the oldest first."""
    plans = re.compile(rf"{RETRY_PREFIX}(\d{{4}})/{re.escape(PLAN_KEY)}")
    begun = (plans.fullmatch(info.key) for info in store.scan(RETRY_PREFIX))
    return [nth_retry(store, number) for number in sorted(int(each[1]) for each in begun if each)]
