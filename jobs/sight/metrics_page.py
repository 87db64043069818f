"""docs/metrics.md: the table of metrics as people read it."""

from collections.abc import Iterator

from jobs.sight.panels import ROWS, Quantile, Query, Share
from pipeline.metric_table import METRICS, Metric

INTRODUCTION = """\
# Metrics

Written by `make docs` from `pipeline/metric_table.py`, all there is: product code can count
nothing that does not stand there. The Grafana board (`deploy/grafana/vidray.json`), `vidray top`
and the endpoint's operator view are made of the same table; alerts are in
`deploy/prometheus/alerts.yaml`. [Watching it work](watching.md) says how to look at them.

Four tell: **job**, `vidray analyze` and `vidray batch run` with `--metrics PORT`; **endpoint**,
`GET /metrics` of `vidray serve`; **ingest**, `vidray ingest run` with `--metrics PORT`; **actor**,
each actor of a cluster (`--address`) through Ray's own exporter on each node, with `ray_` before
the name. A job or an endpoint counts what its own videos did, wherever the actors are; ingest
counts from its start what stands in its schedules' journals, whoever ran the tick. No label holds
the name of a file, a question or anything else that a client wrote.
"""


def metrics_page() -> str:
    """The whole page as Markdown."""
    return "\n".join([INTRODUCTION, _table(), "## What is looked at\n", _looked_at()])


def _table() -> str:
    lines = [
        "| metric | kind | unit | labels | told by | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{each.exported}` | {each.kind} | {each.unit} | {_labels(each)} "
        f"| {', '.join(each.told_by)} | {each.text} |"
        for each in METRICS.values()
    ]
    return "\n".join(lines) + "\n"


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label.name}`" for label in metric.labels)


def _looked_at() -> str:
    lines = ["| panel | unit | of |", "| --- | --- | --- |"]
    for row in ROWS:
        lines.append(f"| **{row.title}** | | |")
        for panel in row.panels:
            names = ", ".join(dict.fromkeys(_named(row.prefix, panel.query)))
            lines.append(f"| {panel.title} | {panel.unit} | {names} |")
    return "\n".join(lines) + "\n"


def _named(prefix: str, query: Query) -> Iterator[str]:
    if isinstance(query, Share):
        yield from _named(prefix, query.part)
        yield from _named(prefix, query.whole)
    elif isinstance(query, Quantile):
        yield f"`{prefix}{query.metric}`"
    else:
        yield f"`{prefix}{METRICS[query.metric].exported}`"
