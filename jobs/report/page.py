"""Writes the page: one HTML file with its style, script, rows and frames inside."""

import json
import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs.places import written_to
from jobs.report.tally import PLOT_HEIGHT, PLOT_WIDTH, Tally
from jobs.report.view import Still, VideoView
from jobs.results import demo_warning
from pipeline.errors import BadInput, VidrayError
from pipeline.store.passed_over import describe_passed_over
from pipeline.tasks.records import Record

MAX_STRIPS = 100  # videos shown with frames: about 35 kB each
MAX_LISTED = 20_000  # videos on the page: about 1 kB each; the totals count every row

_HERE = Path(__file__).parent
_SCRIPT_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}

ReadStills = Callable[[Record], Sequence[Still]]


def write_report(
    records: Iterable[Record],
    path: str | os.PathLike[str],
    *,
    passed_over: Mapping[str, int] | None = None,
    left_out: Sequence[Exception] = (),
    read_stills: ReadStills | None = None,
    max_strips: int = MAX_STRIPS,
    max_listed: int = MAX_LISTED,
    title: str = "vidray report",
) -> Tally:
    """Write the page of these records to `path`, whole or not at all; returns its totals.

    passed_over: files by type that the job did not take. left_out: why rows are missing among
    these records, known once they are read. read_stills: where frames come from
    (Strips().read); None gives a page without. Frames are shown for the first max_strips videos
    that have any, rows for the first max_listed.
    """
    tally = Tally()
    views: list[VideoView] = []
    num_strips = 0
    for record in records:
        tally.add(record)
        if len(views) == max_listed:
            continue
        stills: Sequence[Still] = ()
        note = ""
        if read_stills and record.media and num_strips < max_strips:
            stills, note = _stills(record, read_stills)
            num_strips += bool(stills)
        views.append(VideoView.of(record, stills, frames_note=note))
    page = _render(
        tally,
        views,
        num_strips=num_strips,
        passed_over=describe_passed_over(passed_over or {}),
        left_out="; ".join(map(str, left_out)),
        title=title,
    )
    partial = Path(f"{os.fspath(path)}.partial")
    try:
        with written_to(os.fspath(path)):
            partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return tally


def _stills(record: Record, read_stills: ReadStills) -> tuple[Sequence[Still], str]:
    """The frames, or why there are none: a page is worth having without them."""
    try:
        return read_stills(record), ""
    except BadInput as error:
        return (), f"No frames: {error.detail}."
    except VidrayError as error:
        return (), f"No frames: {error}."


def _render(
    tally: Tally,
    views: list[VideoView],
    *,
    num_strips: int,
    passed_over: str,
    left_out: str,
    title: str,
) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        title=title,
        tally=tally,
        warning=demo_warning(tally.num_demo),
        num_listed=len(views),
        num_strips=num_strips,
        passed_over=passed_over,
        left_out=left_out,
        plot_width=PLOT_WIDTH,
        plot_height=PLOT_HEIGHT,
        style=Markup(style),  # noqa: S704 - our own file, as is the next
        script=Markup(script),  # noqa: S704
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        videos=_to_script_json([asdict(view) for view in views]),
    )


def duration(value_s: float) -> str:
    """The two largest units: 12.3 s, 4 min 5 s, 31 h 12 min."""
    if value_s < 60:
        return f"{value_s:.1f} s"
    minutes, seconds = divmod(round(value_s), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours:,} h {minutes_left} min" if hours else f"{minutes} min {seconds} s"


def _to_script_json(value: object) -> Markup:
    """JSON that cannot end the <script> it stands in, whatever the strings say."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Outside strings JSON has none of these characters, so the escapes are always inside one.
    return Markup(text.translate(_SCRIPT_ESCAPES))  # noqa: S704


def _csp_hash(text: str) -> str:
    """What a content security policy calls exactly this inline text."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
