"""What others wrote reaches no terminal as it is, whatever the command."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.table import Table

from jobs.console import console_of
from pipeline.errors import FailureCode
from pipeline.store.commit import Part, commit_part, finish
from pipeline.store.items import Item
from pipeline.store.job_plan import PlannedItems, open_job
from pipeline.store.local import LocalStore
from pipeline.tasks.records import to_table
from tests.batch_driver import SPEC
from tests.report_rows import bad_row, good_row

ATTACK = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202eevil\x7f"
ITEMS = [Item(uri=f"/videos/{ATTACK}-{number}.mp4") for number in range(3)]
NONE = f"no/{ATTACK}"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A job whose source, videos, words, flags and columns are hostile; it is not finished."""
    folder = tmp_path / f"out{ATTACK.replace('/', '')}"
    store = LocalStore(str(folder))
    spec = replace(SPEC, source=f"/videos/{ATTACK}", items_per_part=1)
    plan = open_job(store, spec, ITEMS)
    rows = [
        replace(good_row(0, text=ATTACK), extra={ATTACK: ATTACK}, flags=(ATTACK,)),
        replace(bad_row(1), detail=ATTACK, code=FailureCode.NOT_FOUND),
    ]
    for index, row in enumerate(rows):
        (item,) = PlannedItems(store, plan).part(index)
        part = Part(job_id=plan.job_id, index=index, video_ids=(item.video_id,), attempt="a")
        commit_part(store, part, to_table([replace(row, video_id=item.video_id, uri=item.uri)]))
    store.put_new(f"parts/{ATTACK.replace('/', '')}.parquet", b"stray")
    store.put_new("parts/part-00002.parquet", ATTACK.encode())
    with pytest.raises(Exception, match="part-00002"):
        finish(store, plan, sha256s={})
    return folder


COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "status": lambda out: ("batch", "status", out),
    "show": lambda out: ("show", out),
    "show one": lambda out: ("show", out, ITEMS[0].uri),
    "show as JSON": lambda out: ("show", out, ITEMS[0].uri, "--json"),
    "show none": lambda out: ("show", out, NONE),
    "tables": lambda out: ("tables", out),
    "fsck": lambda out: ("fsck", out),
    "replay": lambda out: ("replay", out, NONE),
    "report": lambda out: ("report", out, "--page", out / f"page{ATTACK.replace('/', '')}.html"),
    "no job": lambda out: ("batch", "status", out / NONE),
    "no source": lambda out: ("batch", "run", NONE, out / "other", "--model", "vidray-demo"),
    "no job file": lambda out: ("batch", "run", "--job", NONE, "a", "b"),
    "no model": lambda out: ("batch", "run", out, out / "other", "--model", NONE),
    "no flag": lambda out: ("batch", "run", f"--{ATTACK}"),
    "no code": lambda out: ("batch", "run", out, out / "other", "--give-up", ATTACK),
    "no profile": lambda out: ("profile", "show", NONE),
    "no clip": lambda out: ("analyze", NONE, "--in-process"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_control_character_of_others_is_printed(
    command: Callable[[Path], tuple[object, ...]],
    out: Path,
    vidray: Callable[..., tuple[int, str, str]],
) -> None:
    _, said, complained = vidray(*command(out))
    printed = said + complained
    assert printed
    assert {char for char in printed if not char.isprintable()} <= {"\n"}


def test_a_name_is_shown_as_it_is_and_not_as_markup() -> None:
    name, shown = "/clips/[bold]a[/] [x :bear: [2024]", io.StringIO()
    console = console_of(file=shown)
    table = Table(title=name)
    table.add_row(name)
    for shows in (name, table):
        console.print(shows)
    assert shown.getvalue().count(name) == 3


def test_every_command_speaks_through_such_a_console() -> None:
    """jobs/lab shows nothing that others wrote."""
    jobs = Path(__file__).parents[2] / "jobs"
    makes = [path for path in jobs.rglob("*.py") if re.search(r"\bConsole\(", path.read_text())]
    ours = {str(path.relative_to(jobs)) for path in makes if "lab" not in path.parts}
    assert ours == {"console.py"}
