"""videos.sql in the output of a schedule: every video's newest row as a view, for DuckDB."""

import glob

VIEW_KEY = "videos.sql"
_VIEWS = """\
-- duckdb -init {uri}/{key}; rows of every tick, of each video the newest.
-- The output stood there when its first tick ran; in a copy of it, put the copy's place instead.
CREATE OR REPLACE VIEW videos AS
SELECT * EXCLUDE filename
FROM read_parquet('{quoted}/jobs/*/[pr]*/**/part-*.parquet', filename = true, union_by_name = true)
QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY filename DESC) = 1;
"""
_FLAT = """\
CREATE OR REPLACE VIEW {name} AS
SELECT video_id, uri, flags, unnest({name}, max_depth := 2) FROM videos;
"""


def views_of(uri: str) -> str:
    """What creates them, of an output at this place.

    Of the folders of a job those of parts and retries begin with p and r; their names sort as old.
    """
    quoted = glob.escape(uri).replace("'", "''")  # DuckDB's patterns are Python's
    flat = "".join(_FLAT.format(name=name) for name in ("captions", "answers", "boxes"))
    return _VIEWS.format(uri=uri.replace("\n", " "), key=VIEW_KEY, quoted=quoted) + flat
