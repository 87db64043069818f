"""deploy/grafana/vidray.json: the panels as a Grafana board, for any Prometheus."""

import json
from collections.abc import Iterator
from typing import Any

from jobs.sight.panels import ROWS, Panel, PanelRow

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, PER_LINE = 6, 7, 4  # of Grafana's 24 columns
UNITS = {"share": "percentunit", "bytes": "bytes", "bytes/s": "Bps", "s": "s"}


def board() -> str:
    """The whole file."""
    content = {
        "uid": "vidray",
        "title": "vidray",
        "tags": ["vidray"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), _instance()]},
        "panels": [panel | {"id": number} for number, panel in enumerate(_panels(), start=1)],
    }
    return json.dumps(content, indent=1) + "\n"


def expressions(content: str) -> list[tuple[str, str]]:
    """Title and query of every panel of a board."""
    return [
        (panel["title"], target["expr"])
        for panel in json.loads(content)["panels"]
        for target in panel.get("targets", [])
    ]


def _panels() -> Iterator[dict[str, Any]]:
    top = 0
    for row in ROWS:
        yield {
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
            "panels": [],
        }
        top += 1
        for number, panel in enumerate(row.panels):
            line, column = divmod(number, PER_LINE)
            at = {"x": column * WIDTH, "y": top + line * HEIGHT, "w": WIDTH, "h": HEIGHT}
            yield _drawn(row, panel, at)
        top += HEIGHT * -(-len(row.panels) // PER_LINE)


def _drawn(row: PanelRow, panel: Panel, at: dict[str, int]) -> dict[str, Any]:
    legend = " ".join(f"{{{{{name}}}}}" for name in panel.query.by)
    unit = UNITS.get(panel.unit, f"suffix: {panel.unit}" if panel.unit else "short")
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": "A",
                "datasource": DATASOURCE,
                "expr": panel.query.promql(row.prefix),
                "legendFormat": legend or panel.title,
            }
        ],
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Prometheus",
    }


def _instance() -> dict[str, Any]:
    query = 'label_values({__name__=~"(ray_)?vidray_.+"}, instance)'
    return {
        "name": "instance",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "instances"},
        "definition": query,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }
