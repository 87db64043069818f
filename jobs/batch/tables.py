"""`vidray tables`: captions, answers and boxes as flat tables of their own, one object per part.

A job that still grows, or had videos made again, is added to by running it again; what is there
already is kept. A failed row has no captions, answers or boxes: nothing is there twice. Where many
jobs write, a later row of a video takes the place of an earlier one: their tables are made anew
for each state of the output, below the number of entries in its journal and of parts.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from jobs.batch.output import open_rows
from jobs.exits import Exit
from jobs.printable import printable
from pipeline.store.catalogue import Catalogue, is_catalogue
from pipeline.store.commit import PART_PREFIX, TABLE_PREFIX, part_key
from pipeline.store.objects import ObjectStore
from pipeline.store.parquet import to_bytes
from pipeline.store.retries import find_retries
from pipeline.store.rows import (
    committed_parts,
    newest_parts,
    require_none_lost,
    row_stores,
    sound_parts,
)

NAMES = ("captions", "answers", "boxes")
KEYS = ["video_id", "uri", "flags"]  # of the video, in every row


def run(uri: str) -> int:
    """Derive the tables; returns the exit code."""
    store = open_rows(uri)
    state = ""
    if is_catalogue(store):
        num_parts = sum(len(committed_parts(each)) for each in row_stores(store))
        state = f"{Catalogue(store).state.number:08d}-{num_parts:05d}/"
        tables = derive_newest(store, state)
    else:
        tables = derive(store)
    totals = dict.fromkeys(NAMES, 0)
    for name, num_rows in tables:
        totals[name] += num_rows
    for name, total in totals.items():
        print(f"{printable(uri.rstrip('/'))}/{table_key(name, '*', state)}: {total} rows")
    require_none_lost(store)
    return Exit.OK


def derive(store: ObjectStore) -> Iterator[tuple[str, int]]:
    """Write what is missing; yields (table, rows) for each object that is now there. StoreCorrupt
    names the parts that cannot be read, after all others.
    """
    retries = find_retries(store)
    prefixes = ["", *(f"retry-{each.number:04d}-" for each in retries)]
    stores = [store, *(each.store for each in retries)]
    for number, part in sound_parts(stores, [*KEYS, *NAMES]):
        for name in NAMES:
            flat = flatten(part.rows, name)
            place = f"{TABLE_PREFIX}{name}/{prefixes[number]}"
            store.put_new(part_key(part.index).replace(PART_PREFIX, place), to_bytes(flat))
            yield name, flat.num_rows


def derive_newest(store: ObjectStore, state: str) -> Iterator[tuple[str, int]]:
    """The same of every video's newest row, below `state`; parts that come meanwhile are the next
    state's.
    """
    for number, part in enumerate(newest_parts(store, [*KEYS, *NAMES])):
        for name in NAMES:
            flat = flatten(part.rows, name)
            store.put_new(table_key(name, f"part-{number:05d}", state), to_bytes(flat))
            yield name, flat.num_rows


def table_key(name: str, part: str, state: str = "") -> str:
    return f"{TABLE_PREFIX}{state}{name}/{part}.parquet"


def flatten(rows: pa.Table, name: str) -> pa.Table:
    """One row per list element of column `name`: its fields, after those of its video."""
    lists = rows[name].combine_chunks()
    elements = pc.list_flatten(lists)
    videos = rows.select(KEYS).take(pc.list_parent_indices(lists))
    fields = [videos.schema.field(key) for key in KEYS] + list(elements.type)
    columns = [*videos.columns, *elements.flatten()]
    return pa.table(columns, schema=pa.schema(fields))
