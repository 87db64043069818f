"""The rows of a job's output, or of one Parquet file, as records."""

import os
from collections.abc import Iterator, Mapping
from io import BytesIO

import pyarrow as pa

from jobs.batch.output import require_there
from pipeline.errors import BadInput, ConfigError
from pipeline.store.commit import MAX_PART_BYTES, part_key
from pipeline.store.job_plan import load_plan
from pipeline.store.objects import get
from pipeline.store.open import open_store
from pipeline.store.parquet import read_batches
from pipeline.store.rows import committed_parts, newest_parts, require_none_lost, row_stores
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import locate
from pipeline.tasks.records import Record, from_table

SUFFIX = ".parquet"
BATCH_ROWS = 64


def read_records(uri: str, *, s3: S3Config | None = None) -> Iterator[Record]:
    """Every record of a job's output folder or of one .parquet file, a batch at a time.

    A job that still runs gives the parts it has. ConfigError where there are no such rows.
    StoreCorrupt names parts that cannot be read or were lost, after all others.
    """
    require_there(uri)
    if os.path.isfile(uri) and not uri.endswith(SUFFIX):
        raise ConfigError(
            f"{uri} is a file: a report is made of a job's output, as vidray batch run wrote it, "
            f"or of one {SUFFIX} file of rows"
        )
    if uri.endswith(SUFFIX):
        store_uri, key = locate(uri)
        store = open_store(store_uri, s3)
        try:
            yield from _records(get(store, key, max_bytes=MAX_PART_BYTES))
        except (BadInput, pa.ArrowException, ValueError) as error:
            raise _not_ours(key, error) from error
        return
    store = open_store(uri, s3)
    if not any(committed_parts(each) for each in row_stores(store)):
        raise ConfigError(f"{uri} holds no parts: it is no job's output, or the job has just begun")
    for part in newest_parts(store):
        try:
            yield from from_table(part.rows)
        except ValueError as error:
            raise _not_ours(part_key(part.index), error) from error
    require_none_lost(store)


def _not_ours(key: str, error: Exception) -> ConfigError:
    reason = str(error).splitlines()[0]
    return ConfigError(f"{key} does not hold vidray's rows: {reason}")


def read_passed_over(uri: str, *, s3: S3Config | None = None) -> Mapping[str, int]:
    """Files by type that the job of this output did not take; none of a .parquet file."""
    plan = None if uri.endswith(SUFFIX) else load_plan(open_store(uri, s3))
    return plan.passed_over if plan is not None else {}


def _records(data: bytes) -> Iterator[Record]:
    for batch in read_batches(BytesIO(data), num_rows=BATCH_ROWS):
        yield from from_table(pa.Table.from_batches([batch]))
