"""docs/schema.md: the columns of a row, from the schema that writes them."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import Blame, FailureCode
from pipeline.tasks.records import SCHEMA, SCHEMA_VERSION

INTRODUCTION = f"""\
# Schema

Written by `make docs` from `pipeline/tasks/records.py`. One row per planned video; this is schema
{SCHEMA_VERSION}, and rows of every earlier one are read by every command. Columns are only ever
added: none is renamed or given another meaning. The words below travel in each Parquet file too, as
metadata of its fields (`vidray.schema` is the version).

Times are seconds from the first frame of the video. All text the model wrote is untrusted data.
`vidray tables OUT` makes flat tables of `captions`, `answers` and `boxes`, with `video_id`, `uri`
and `flags` of the video in front. [How to read them with pandas and DuckDB](batch.md).
"""
BLAMES = {
    Blame.VIDEO: "the video, or what was asked of it: its row at once",
    Blame.STORE: "perhaps the store: tried again beside others before it is a row",
    Blame.FLEET: "perhaps the processes that worked on it: likewise",
}


def schema_page() -> str:
    """The whole page as Markdown."""
    lines = [INTRODUCTION, "## Columns\n", "| column | type | |", "| --- | --- | --- |"]
    lines += [f"| {name} | {kind} | {text} |" for name, kind, text in _columns(SCHEMA, "")]
    lines += ["", "## Failure codes\n", "Of `code`; they are never renamed.\n"]
    lines += ["| code | whom it accuses |", "| --- | --- |"]
    lines += [f"| `{code}` | {BLAMES[code.blame]} |" for code in FailureCode]
    return "\n".join(lines) + "\n"


def _columns(fields: "pa.Schema | pa.StructType", path: str) -> Iterator[tuple[str, str, str]]:
    for field in fields:
        kind, text = field.type, (field.metadata or {}).get(b"doc", b"").decode()
        name = f"{path}{field.name}"
        yield f"`{name}`", _named(kind) + ("" if field.nullable else ", never null"), text
        inner = kind.value_type if pa.types.is_list(kind) else kind
        if pa.types.is_struct(inner):
            yield from _columns(inner, f"{name}.")


def _named(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_named(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {_named(kind.key_type)} to {_named(kind.item_type)}"
    return "struct" if pa.types.is_struct(kind) else str(kind)
