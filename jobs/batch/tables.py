"""`vidray tables`: captions, answers and boxes as flat tables of their own, one object per part.

A job that still grows is added to by running it again; what is there already is kept.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from jobs.batch.output import open_output
from jobs.exits import Exit
from pipeline.store.commit import part_key
from pipeline.store.objects import ObjectStore
from pipeline.store.parquet import to_bytes
from pipeline.store.rows import committed_parts, read_part

NAMES = ("captions", "answers", "boxes")
KEYS = ["video_id", "uri"]  # of the video, in every row


def run(uri: str) -> int:
    """Derive the tables; returns the exit code."""
    store = open_output(uri).store
    totals = dict.fromkeys(NAMES, 0)
    for name, num_rows in derive(store):
        totals[name] += num_rows
    for name, total in totals.items():
        print(f"{uri.rstrip('/')}/{table_key(name, '*')}: {total} rows")
    return Exit.OK


def derive(store: ObjectStore) -> Iterator[tuple[str, int]]:
    """Write what is missing; yields (table, rows) for each object that is now there."""
    for index in committed_parts(store):
        rows = read_part(store, index, [*KEYS, *NAMES])
        for name in NAMES:
            flat = flatten(rows, name)
            store.put_new(part_key(index).replace("parts/", f"tables/{name}/"), to_bytes(flat))
            yield name, flat.num_rows


def table_key(name: str, part: str) -> str:
    return f"tables/{name}/{part}.parquet"


def flatten(rows: pa.Table, name: str) -> pa.Table:
    """One row per list element of column `name`: its fields, after the video's id and uri."""
    lists = rows[name].combine_chunks()
    elements = pc.list_flatten(lists)
    videos = rows.select(KEYS).take(pc.list_parent_indices(lists))
    fields = [videos.schema.field(key) for key in KEYS] + list(elements.type)
    columns = [*videos.columns, *elements.flatten()]
    return pa.table(columns, schema=pa.schema(fields))
