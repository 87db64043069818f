"""A job's rows in a bucket, read by the tools that people have, as docs/batch.md says."""

import re
import uuid
from pathlib import Path

import duckdb
import pyarrow.dataset
from pyarrow.fs import S3FileSystem

from jobs.lab.bench.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from pipeline.store.open import open_store
from tests.job_rows import commit_job, records

README = Path(__file__).parents[2] / "docs/batch.md"


def test_the_readmes_query_over_s3_gives_what_the_job_wrote(s3_server: S3Server) -> None:
    place = f"{BUCKET}/{uuid.uuid4().hex}"
    commit_job(open_store(f"s3://{place}", s3_server.config()))
    bucket = S3FileSystem(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_override=s3_server.endpoint
    )
    rows = pyarrow.dataset.dataset(f"{place}/parts", filesystem=bucket)
    (query,) = re.findall(r'duckdb\.sql\("(.* FROM rows .*)"\)', README.read_text())
    found = duckdb.sql(query).fetchall()
    assert found == [("truncated", 1)]
    assert rows.count_rows() == len(records())
