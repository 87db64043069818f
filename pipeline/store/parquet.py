"""Tables as Parquet bytes and back, without a thread of Arrow's.

Arrow's threads go on for a moment after pq.read_table has returned. The one that lets go of
Python's bytes last needs Python's lock, and if Python is ending by then, the process aborts or
hangs instead (apache/arrow#34314, #50482). Parts are small; their readers often end right after.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq


def to_bytes(table: pa.Table) -> bytes:
    """The table as one Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_table(source: bytes | io.RawIOBase, columns: Sequence[str] | None = None) -> pa.Table:
    """All columns or these, checked. ValueError if it is no Parquet, or a column not there once.

    source: of a file only the footer and these columns are read.
    """
    file = pa.BufferReader(source) if isinstance(source, bytes) else source
    with _readable():
        table = _open(file).read(columns, use_threads=False)
        table.validate(full=True)  # outside data: Arrow trusts its buffers otherwise
        return table.select(table.column_names if columns is None else columns)


def read_leaves(source: io.RawIOBase, paths: Sequence[str]) -> pa.Table:
    """What lies at these paths, such as boxes.list.element.code, checked; the rest is not read."""
    with _readable():
        table = _open(source).read(paths, use_threads=False)
        table.validate(full=True)
        return table


def read_batches(file: IO[bytes], *, num_rows: int) -> Iterator[pa.RecordBatch]:
    """Up to num_rows rows at a time, checked. ValueError if it is no Parquet."""
    with _readable():
        for batch in _open(file).iter_batches(batch_size=num_rows, use_threads=False):
            batch.validate(full=True)
            yield batch


def _open(file: IO[bytes] | pa.NativeFile) -> pq.ParquetFile:
    return pq.ParquetFile(file, pre_buffer=False)  # which would fetch in threads, used or not


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError(f"not readable as Parquet ({error})") from error
