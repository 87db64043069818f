"""`vidray show`: what a job said, of all its videos in a line each, or of one in full."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from itertools import chain, islice

from jobs.batch.output import find, open_rows, records_of
from jobs.exits import Exit
from jobs.pager import page
from jobs.printable import printable
from jobs.results import rows
from pipeline.errors import ConfigError, FailureCode
from pipeline.store.objects import ObjectStore
from pipeline.store.rows import read_rows, require_none_lost
from pipeline.tasks.records import Record, to_json

SHORT_DIGEST = 12  # digits of one, as people compare them; --json has them whole
MAX_COMPARED = 100_000  # names among which a mistyped one is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """Which rows are shown. failed: those with a failure, their own or within; code: with this one.

    search: part of the uri, or of anything that was asked or said, in any case.
    """

    failed: bool = False
    code: str | None = None
    search: str | None = None

    def __post_init__(self) -> None:
        if self.code is not None and self.code not in set(FailureCode):
            near = get_close_matches(self.code, list(FailureCode), n=1)
            hint = f"; did you mean {near[0]}?" if near else f", one of {', '.join(FailureCode)}"
            raise ConfigError(f"--code must be a failure code, got {self.code!r}{hint}")

    def accepts(self, record: Record) -> bool:
        codes = {*record.result_codes, *([record.code] if record.code else [])}
        is_failure = bool(codes) if self.code is None else self.code in codes
        wants_failures = self.failed or self.code is not None
        return (is_failure or not wants_failures) and self._is_found(record)

    def _is_found(self, record: Record) -> bool:
        if self.search is None:
            return True
        texts = chain([printable(record.uri)], *rows(record), record.extra.values())
        wanted = self.search.casefold()
        return any(wanted in text.casefold() for text in texts)


def run(
    uri: str, name: str | None, *, wanted: RowFilter, limit: int | None = None, json: bool = False
) -> int:
    """Print; returns the exit code. name: a video's uri, the end of it, or its id.

    StoreCorrupt names parts that cannot be read or were lost, after all else is said.
    """
    store = open_rows(uri)
    records = _records(store) if name is None else _named(store, name)
    chosen: Iterator[Record] = islice(filter(wanted.accepts, records), limit)
    if (first := next(chosen, None)) is None:
        print(_nothing(uri, wanted), file=sys.stderr)
        require_none_lost(store)
        return Exit.OK
    chosen = chain([first], chosen)
    if json:
        page(map(to_json, chosen))
    elif name is None:
        page(map(_line, chosen))
    else:
        page(line for record in chosen for line in _full(record))
    require_none_lost(store)
    return Exit.OK


def _nothing(uri: str, wanted: RowFilter) -> str:
    if wanted != RowFilter():
        return "no row is like that"
    return printable(f"no rows yet; vidray batch status {uri} says what is missing")


def no_such_row(store: ObjectStore, name: str) -> ConfigError:
    """Says which name was probably meant."""
    tables = read_rows(store, ["video_id", "uri"])
    uris = (uri for table in tables for uri in table["uri"].to_pylist())
    names = (uri.rpartition("/")[2] for uri in islice(uris, MAX_COMPARED))
    by_folded = {each.casefold(): each for each in names}
    near = get_close_matches(name.rpartition("/")[2].casefold(), by_folded, n=1)
    hint = f"; did you mean {by_folded[near[0]]}?" if near else ""
    return ConfigError(f"{store.uri} has no row of {name!r}{hint}")


def _named(store: ObjectStore, name: str) -> Iterator[Record]:
    records = (entry.record for entry in find(store, name))
    if (first := next(records, None)) is None:
        require_none_lost(store)  # the row may be
        raise no_such_row(store, name)
    return chain([first], records)


def _records(store: ObjectStore) -> Iterator[Record]:
    return (record for table in read_rows(store) for record in records_of(table, uri=store.uri))


def _line(record: Record) -> str:
    plain = ("caption", "failed")
    said = [said if asked in plain else f"{asked}: {said}" for asked, said in rows(record)]
    return f"{printable(record.uri)}: {'; '.join(said)}"


def _full(record: Record) -> Iterator[str]:
    yield printable(record.uri)
    for asked, said in rows(record):
        yield f"  {asked}: {said}"
    facts = asdict(record)
    for group in ("media", "plan", "provenance", "timings"):
        fields = facts[group] or {}
        cells = [f"{name} {_short(name, value)}" for name, value in fields.items() if value != ()]
        yield f"  {group}: {printable(', '.join(cells)) or 'unknown'}"
    etag = None if record.etag is None else record.etag[: 2 * SHORT_DIGEST]
    yield f"  identity: {record.video_id}, etag {etag}, {record.size_bytes} bytes"
    for name, value in record.extra.items():
        yield f"  {printable(name)}: {printable(value)}"
    if record.flags:
        yield f"  flags: {printable(', '.join(record.flags))}"


def _short(name: str, value: object) -> str:
    """As people read it: three digits of seconds, the beginning of a digest, how many windows."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, tuple):
        words = [each for each in value if isinstance(each, str)]
        return "+".join(words) or str(len(value))
    text = str(value)
    return text[:SHORT_DIGEST] if name == "hash" or name.endswith("_digest") else text
