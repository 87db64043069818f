"""All checks on one device, one after another."""

import time
import traceback
from collections.abc import Iterator
from typing import Any

from jobs.lab.gpu.checks import CHECKS, CheckFailed, free
from jobs.lab.gpu.device import Device


def run(device: Device) -> Iterator[dict[str, Any]]:
    """Every check's line, as soon as it is through; a failed one costs no other its turn."""
    for name, check in CHECKS.items():
        started_s = time.perf_counter()
        line: dict[str, Any] = {"check": name, "device": device.label, "passed": True}
        try:
            line |= check(device)
        except CheckFailed as error:
            line |= {"passed": False, "reason": str(error)}
        except Exception as error:  # noqa: BLE001 - it is what the run is to find out
            where = traceback.format_exc().strip().splitlines()[-4:]
            line |= {"passed": False, "reason": repr(error), "where": where}
        free(device)
        yield line | {"took s": round(time.perf_counter() - started_s, 1)}
