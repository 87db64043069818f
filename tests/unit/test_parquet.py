"""Parquet bytes are read whole or refused, and no thread of Arrow's is left that holds them."""

import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.store.parquet import read_batches, read_table, to_bytes

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"], "c": [["p"], [], ["q", "r"]]})
# A thread that lets go of Python's bytes while Python ends aborts the process, now and then. So
# what is looked at is what can be seen each time: whether reading started one.
READ_AND_COUNT_THREADS = """
import io, os, sys
from pipeline.store.parquet import read_batches, read_table, to_bytes
data = sys.stdin.buffer.read()
before = os.listdir("/proc/self/task")
table = read_table(data)
read_table(data, ["a"])
list(read_batches(io.BytesIO(data), num_rows=2))
to_bytes(table)
assert os.listdir("/proc/self/task") == before
"""


def test_no_thread_is_left_that_could_outlive_python() -> None:
    command = [sys.executable, "-c", READ_AND_COUNT_THREADS]
    subprocess.run(command, input=to_bytes(TABLE), check=True, timeout=60)


def test_a_table_comes_back_whole_or_by_columns() -> None:
    data = to_bytes(TABLE)
    assert read_table(data).equals(TABLE)
    assert read_table(data, ["c", "a"]).equals(TABLE.select(["c", "a"]))
    batches = list(read_batches(io.BytesIO(data), num_rows=2))
    assert [batch.num_rows for batch in batches] == [2, 1]
    assert pa.Table.from_batches(batches).equals(TABLE)


@pytest.mark.parametrize("data", [b"", b"no Parquet", to_bytes(TABLE)[:-1], b"PAR1" * 10])
def test_bytes_that_are_no_parquet_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not readable as Parquet"):
        read_table(data)
    with pytest.raises(ValueError, match="not readable as Parquet"):
        list(read_batches(io.BytesIO(data), num_rows=2))


def test_a_column_that_is_not_there_once_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="'d'|\"d\""):
        read_table(to_bytes(TABLE), ["a", "d"])
    twice = io.BytesIO()
    pq.write_table(TABLE.rename_columns(["a", "b", "a"]), twice)
    with pytest.raises(ValueError, match="2 times"):
        read_table(twice.getvalue())
