"""A timeline of videos, as Chrome trace events: a file that ui.perfetto.dev opens.

One process per actor, in it one track per video, and one per answer being written. Times count
from the first event; clocks of other machines are moved by the difference of their times of day.
Perfetto drops slices that cross another's edge on their track, and what is before time 0.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.events import Event, Listener, Moved, Planned, Words
from pipeline.span import Process, Span
from pipeline.tasks.requests import Request


class Trace:
    """Hears of videos and becomes a file."""

    def __init__(self) -> None:
        # Span, (title, key) of the track, name, args.
        self._slices: list[tuple[Span, tuple[str, str], str, dict[str, Any]]] = []

    def listener(self, video: str) -> Listener:
        """Notes the events of one video."""

        def hear(event: Event) -> None:
            if isinstance(event, Planned):
                self._note(event.span, video, "plan", tokens=event.plan.num_tokens)
            elif isinstance(event, Moved):
                window, chunk = event.window_index, event.chunk_index
                name = f"{event.stage} {chunk}"
                self._note(event.span, video, name, video=video, window=window, chunk=chunk)
            elif isinstance(event, Words) and event.text:
                track = f"{video}: {_title(event.request)}"
                key = f"{event.request.task_index} {event.request.start_s!r}"
                self._note(event.span, track, event.text, key=key, video=video)

        return hear

    def write(self, path: Path) -> None:
        """Write everything heard so far. OSError if that is not possible."""
        content = {"traceEvents": list(self._events()), "displayTimeUnit": "ms"}
        text = json.dumps(content, ensure_ascii=False)
        path.write_text(text, encoding="utf-8", errors="replace")

    def _note(self, span: Span, track: str, name: str, *, key: str = "", **facts: Any) -> None:
        self._slices.append((span, (track, key), name, facts))

    def _events(self) -> Iterator[dict[str, Any]]:
        """Slices in the order of their starts, each process and track named before its first."""
        if not self._slices:
            return
        origin = self._slices[0][0].process
        slices = sorted(self._slices, key=lambda entry: _edges_ns(entry[0], origin))
        first_ns = _edges_ns(slices[0][0], origin)[0]
        processes: dict[str, int] = {}
        tracks: dict[tuple[str, tuple[str, str]], int] = {}
        for span, track, name, facts in slices:
            process = span.process.name
            if process not in processes:
                processes[process] = len(processes) + 1
                yield _named("process_name", process, pid=processes[process], tid=0)
            key = (process, track)
            if key not in tracks:
                tracks[key] = len(tracks) + 1
                yield _named("thread_name", track[0], pid=processes[process], tid=tracks[key])
            started_ns, ended_ns = _edges_ns(span, origin)
            yield {
                "ph": "X",
                "name": name,
                "cat": span.stage,
                "pid": processes[process],
                "tid": tracks[key],
                "ts": (started_ns - first_ns) / 1e3,
                "dur": (ended_ns - started_ns) / 1e3,
                "args": {**facts, **_amounts(span), "process": span.process.process_id},
            }


def _edges_ns(span: Span, origin: Process) -> tuple[int, int]:
    """Whole: viewers round ts and dur to them one by one, and drop what then overlaps."""
    offset_s = _offset_s(span.process, origin)
    return round((span.started_s + offset_s) * 1e9), round((span.ended_s + offset_s) * 1e9)


def _offset_s(process: Process, origin: Process) -> float:
    """What turns the process's clock into the origin's; exactly 0 on the same machine."""
    return 0.0 if process.machine == origin.machine else process.epoch_s - origin.epoch_s


def _amounts(span: Span) -> dict[str, float]:
    amounts = {"frames": span.num_frames, "tokens": span.num_tokens, "bytes": span.num_bytes}
    share = {} if span.kv_share is None else {"kv_share": round(span.kv_share, 4)}
    return {name: amount for name, amount in amounts.items() if amount} | share


def _title(request: Request) -> str:
    title = f"{request.kind} {request.subject}".strip()
    if request.kind == "ground":
        return f"{title} at {request.start_s:g} s"
    return title if request.window_index is None else f"{title} [{request.window_index}]"


def _named(kind: str, name: str, *, pid: int, tid: int) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}
