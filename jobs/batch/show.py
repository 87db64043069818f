"""`vidray show`: what a job said, of all its videos in a line each, or of one in full."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice

from jobs.batch.output import find, open_output, records_of
from jobs.exits import Exit
from jobs.results import printable, rows
from pipeline.errors import ConfigError
from pipeline.store.objects import ObjectStore
from pipeline.store.rows import read_rows
from pipeline.tasks.records import Record, to_json


def run(uri: str, name: str | None, *, limit: int, json: bool) -> int:
    """Print; returns the exit code. name: a video's uri, the end of it, or its id."""
    output = open_output(uri)
    if name is None:
        records = islice(_records(output.store), limit)
        shown = map(to_json, records) if json else map(_line, records)
        for line in shown:
            print(line)
        return Exit.OK
    found = [entry.record for entry in find(output, name)]
    if not found:
        raise ConfigError(f"{uri} has no row of {name!r}")
    for record in found:
        for line in [to_json(record)] if json else _full(record):
            print(line)
    return Exit.OK


def _records(store: ObjectStore) -> Iterator[Record]:
    return (record for table in read_rows(store) for record in records_of(table, uri=store.uri))


def _line(record: Record) -> str:
    _, said = next(rows(record), ("", ""))
    return f"{printable(record.uri)}: {said}"


def _full(record: Record) -> Iterator[str]:
    yield printable(record.uri)
    for asked, said in rows(record):
        yield f"  {asked}: {said}"
    facts = asdict(record)
    for group in ("media", "plan", "provenance", "timings"):
        fields = facts[group] or {}
        cells = [f"{name} {value}" for name, value in fields.items() if name != "windows"]
        yield f"  {group}: {printable(', '.join(cells)) or 'unknown'}"
    yield f"  identity: {record.video_id}, etag {record.etag}, {record.size_bytes} bytes"
    for name, value in record.extra.items():
        yield f"  {printable(name)}: {printable(value)}"
    if record.flags:
        yield f"  flags: {', '.join(record.flags)}"
