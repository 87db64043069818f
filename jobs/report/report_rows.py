"""The rows of a job's output, or of one Parquet file, as records."""

from collections.abc import Iterator
from io import BytesIO

import pyarrow as pa

from pipeline.errors import BadInput, ConfigError
from pipeline.store.commit import MAX_PART_BYTES, PART_PREFIX, part_index
from pipeline.store.objects import get
from pipeline.store.open import open_store
from pipeline.store.parquet import read_batches
from pipeline.store.s3_config import S3Config
from pipeline.store.sources import locate
from pipeline.tasks.records import Record, from_table

SUFFIX = ".parquet"
BATCH_ROWS = 64


def read_records(uri: str, *, s3: S3Config | None = None) -> Iterator[Record]:
    """Every record of a job's output folder or of one .parquet file, a batch at a time.

    A job that still runs gives the parts it has. ConfigError where there are no such rows.
    """
    if uri.endswith(SUFFIX):
        store_uri, key = locate(uri)
        keys = [key]
    else:
        store_uri = uri
        keys = [
            info.key
            for info in open_store(uri, s3).scan(PART_PREFIX)
            if part_index(info.key) is not None
        ]
    if not keys:
        raise ConfigError(f"{uri} holds no parts: it is no job's output, or the job has just begun")
    store = open_store(store_uri, s3)
    for key in sorted(keys):
        try:
            yield from _records(get(store, key, max_bytes=MAX_PART_BYTES))
        except (BadInput, pa.ArrowException, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{key} does not hold vidray's rows: {reason}") from error


def _records(data: bytes) -> Iterator[Record]:
    for batch in read_batches(BytesIO(data), num_rows=BATCH_ROWS):
        yield from from_table(pa.Table.from_batches([batch]))
