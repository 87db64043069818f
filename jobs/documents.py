"""Every file that is written from code: pages of docs/ and the Grafana board.

python -m jobs.documents writes them all (`make docs`); a test holds them equal.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from jobs.reference import reference
from jobs.schema_page import schema_page
from jobs.sight.board import board
from jobs.sight.metrics_page import metrics_page

ROOT = Path(__file__).parents[1]
WRITTEN: Mapping[str, Callable[[], str]] = {
    "docs/configuration.md": reference,
    "docs/metrics.md": metrics_page,
    "docs/schema.md": schema_page,
    "deploy/grafana/vidray.json": board,
}


def main() -> None:
    for name, content in WRITTEN.items():
        (ROOT / name).write_text(content(), encoding="utf-8")


if __name__ == "__main__":
    main()
