"""Reading a Chrome trace as strictly as a viewer could.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (the format)
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any


def require_timeline(path: Path) -> list[dict[str, Any]]:
    """The file's events, which are complete slices on named tracks, none across another's edge."""
    content = json.loads(path.read_text(), parse_constant=_refuse)
    names: dict[str, set[tuple[int, int]]] = defaultdict(set)
    slices: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in content["traceEvents"]:
        pid, tid = event["pid"], event["tid"]
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert event["args"]["name"]
            names[event["name"]].add((pid, tid))
            continue
        assert event["ph"] == "X"
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        assert (pid, 0) in names["process_name"]
        assert (pid, tid) in names["thread_name"]
        start_ns = round(event["ts"] * 1e3)  # as Perfetto rounds them, one by one
        slices[pid, tid].append((start_ns, start_ns + round(event["dur"] * 1e3)))
    for spans in slices.values():
        for (_, end), (start, _) in zip(sorted(spans), sorted(spans)[1:], strict=False):
            assert end <= start, "slices of one track may not cross"
    return content["traceEvents"]


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
