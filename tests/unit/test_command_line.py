"""What is typed wrong is one clear line; what is drawn and printed can do no harm."""

import io
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jobs import cli
from jobs.analyze import AnalyzeCommand
from jobs.display import LiveDisplay
from jobs.draw import COLOURS, draw_boxes
from jobs.flags import build
from jobs.gauges import Gauges
from jobs.printable import printable
from jobs.results import show
from jobs.serving import ServingOptions
from pipeline.config import Sampling
from pipeline.engine.constraint import Choices, JsonSchema
from pipeline.errors import ConfigError, FailureCode
from pipeline.events import Moved, Planned
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.span import Process
from pipeline.tasks.options import TaskOptions
from pipeline.tasks.records import Answer, Box, Caption, Provenance, Record, Timings
from pipeline.tasks.resolve import make_plan_options, make_sampling, make_tasks
from pipeline.video.plan import Planner
from pipeline.video.reader import probe
from pipeline.video.source import Source
from tests.conftest import Vidray
from tests.media_factory import Clip, make, read_barcode
from tests.tiny_folder import write_folder


def settings(clips=(Path("a.mp4"),), out=(), **asked):
    tasks = build(TaskOptions, asked)
    return AnalyzeCommand(tasks=tasks, serving=ServingOptions(), clips=clips, out=out)


def record(**fields):
    made_by = Provenance(model="m", model_digest="d", tasks_digest="t", version="0")
    times = dict.fromkeys(("plan_s", "read_s", "encode_s", "prefill_s", "generate_s"), 0.0)
    blank = {
        "video_id": "0a",
        "uri": "clips/a.mp4",
        "etag": "e",
        "size_bytes": 1,
        "status": "ok",
        "provenance": made_by,
        "timings": Timings(**times, first_word_s=0.5, total_s=1.0),
    }
    return Record(**(blank | fields))


def typed(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["vidray", *arguments])
    code = cli._run()
    captured = capsys.readouterr()
    return int(code), captured.out, captured.err.strip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["analyze", "a.mp4", "--aks", "Why?"], "--aks"),
        (["analyse", "a.mp4"], "analyse"),
        (["analyze"], "CLIP"),
        (["analyze", "a.mp4", "--fps", "two"], "--fps must be a number, got two"),
        (["analyze", "a.mp4", "--reader", "opencv"], "opencv"),
        (["analyze", "a.mp4", "--long", "short"], "short"),
        (["bench", "sound"], "no topic 'sound'"),
        (["analyze", "a.mp4", "--at", "3"], "--at needs --ground"),
        (["analyze", "a.mp4", "--model", "/no/such/folder"], "folder: not a model folder"),
        (["analyze", "a.mp4", "--ask", "  "], "needs words"),
        (["analyze", "a.mp4", "--ground", "it", "--out", "/dev/null/x"], "--out /dev/null/x"),
        (["analyze", "a.mp4", "--max-new-tokens", "0"], "--max-new-tokens must be at least 1"),
        (["analyze", "a.mp4", "--seed", "1.5"], "--seed must be a whole number"),
        (["analyze", "a.mp4", "--ground", "it", "--at", "-1"], "--at must be at least 0"),
        (
            ["analyze", "a.mp4", "--start", "5", "--end", "2"],
            "--start must be before --end, got 5 and 2",
        ),
        (["analyze", "a.mp4", "--choices", "a"], "--choices needs --ask"),
        (["analyze", "a.mp4", "--schema", "{}"], "--schema needs --ask"),
        (["analyze", "a.mp4", "--metrics", "nine"], "--metrics must be PORT or HOST:PORT with a"),
        (["batch", "run", "a", "b", "--metrics", "65536"], "port up to 65535, got 65536"),
        (["analyze", "a.mp4", "--overlap", "2"], "--overlap needs --long windows"),
        (["analyze", "a.mp4", "--no-caption"], "without --caption there must be --ask or"),
        (["demo", "--in-process", "--address", "auto"], "--in-process excludes --address"),
        (["batch", "run", "a", "b", "--videos-per-part", "0"], "--videos-per-part must be at"),
        (["analyze", "a.mp4", "--in-process", "--address", "auto"], "--in-process excludes"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_mistyped_command_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, says):
    code, out, err = typed(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert err.startswith("vidray: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", [(), ("analyze",), ("batch", "run")], ids=" ".join)
def test_help_is_asked_for_with_one_letter_too(monkeypatch, capsys, command):
    short, long = (typed(monkeypatch, capsys, *command, flag) for flag in ("-h", "--help"))
    assert short == long
    assert short[0] == 0
    assert "Usage" in short[1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [("vidray an", {"analyze"}), ("vidray batch run --gr", {"--ground", "--grace"})],
)
def test_a_shell_completes_commands_and_flags(words, offered):
    asked = {
        "_VIDRAY_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    vidray = Path(sys.executable).with_name("vidray")
    said = subprocess.run(
        [vidray], env=os.environ | asked, capture_output=True, text=True, timeout=60, check=True
    )
    assert set(said.stdout.split()) == offered


@pytest.mark.parametrize("program", [["vidray"], ["python", "-m", "jobs.cli"]], ids=" ".join)
def test_either_way_to_the_command_line_says_its_version(program):
    command = [Path(sys.executable).with_name(program[0]), *program[1:], "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (said.stdout, said.stderr) == (f"vidray {version('vidray')}\n", "")


def test_a_reader_that_is_not_installed_is_one_line_too(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "decord", None)
    code, _, err = typed(monkeypatch, capsys, "analyze", "a.mp4", "--reader", "decord")
    assert (code, err.splitlines()[1:]) == (
        2,
        ["vidray: the reader decord is not installed: it has no wheel for this machine"],
    )


def test_what_is_typed_wrong_is_found_before_ray_is_started(monkeypatch, capsys, tmp_path):
    def start_fleet(*_, **__):
        pytest.fail("Ray was started")

    monkeypatch.setattr("actors.launch.start_fleet", start_fleet)
    model = write_folder(tmp_path / "model")
    uneven = tmp_path / "uneven.yaml"
    uneven.write_text("decoders: {tensor_parallel: 7}")
    (tmp_path / "empty").mkdir()
    for arguments, says in (
        (["--model", str(tmp_path / "empty")], "config.json: missing"),
        (["--model", str(model), "--profile", str(tmp_path / "none.yaml")], "no such profile"),
        (["--model", str(model), "--profile", str(uneven)], "7 ranks"),
    ):
        code, _, err = typed(monkeypatch, capsys, "analyze", "a.mp4", *arguments)
        assert code == 2, err
        assert says in err


@pytest.mark.parametrize(
    "wrong",
    [
        {"at": (1.0,)},
        {"choices": "a,b"},
        {"schema": "{}"},
        {"ask": ("?",), "choices": "a", "schema": "{}"},
        {"ask": ("?",), "schema": "no json"},
        {"ask": ("?",), "choices": "a,,b"},
        {"out": (Path("out"),)},
        {"overlap": 193.0, "long": "windows"},
        {"caption": False},
        {"start": 2.0, "end": 1.0},
        {"start": -1.0},
        {"preset": "none"},
        {"overlap": 1.0},
        {"fps": 0.0},
    ],
    ids=lambda wrong: ",".join(wrong),
)
def test_options_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ConfigError):
        settings(**wrong).require_good()


def test_choices_and_schemas_hold_every_question():
    of_choices = make_tasks(TaskOptions(ask=("a?", "b?"), choices="red, blue"), Sampling())
    of_schema = make_tasks(TaskOptions(ask="a?", schema={"type": "object"}), Sampling())
    assert [ask.constraint for ask in of_choices.asks] == [Choices(("red", "blue"))] * 2
    assert [ask.constraint for ask in of_schema.asks] == [JsonSchema('{"type": "object"}')]


def test_a_schema_that_cannot_be_read_is_told_before_the_model_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match="schema"):
        settings(ask=("?",), schema=str(tmp_path / "none.json")).require_good()


def test_a_temperature_replaces_the_checkpoints_sampling_and_the_seed_counts():
    own = Sampling(temperature=0.01, top_p=0.001, top_k=1, repetition_penalty=1.05)
    assert make_sampling(TaskOptions(max_new_tokens=9), own).is_greedy
    hot = make_sampling(TaskOptions(temperature=0.7, seed=4), own)
    assert (hot.temperature, hot.top_k, hot.top_p, hot.seed) == (0.7, 0, 1.0, 4)
    assert hot.repetition_penalty == 1.05


def test_the_range_reaches_the_plan_and_the_rows_name():
    typed_range = settings(start=1.0, end=2.0)
    options = make_plan_options(typed_range.tasks)
    assert (options.start_s, options.end_s) == (1.0, 2.0)
    clip = Path("a.mp4")
    assert typed_range.video_id(clip) != settings().video_id(clip)


RESULTS = record(
    uri="clips/\x1b[31mred\x1b[0m.mp4",
    captions=(
        Caption(
            start_s=0.0,
            end_s=4.0,
            window_index=None,
            text="A dog\n[bold]runs\x1b]0;title\x07.",
            finish_reason="stop",
        ),
    ),
    answers=(
        Answer(
            question="Why?",
            start_s=0.0,
            end_s=2.0,
            window_index=0,
            answer="",
            finish_reason=None,
            code=FailureCode.NONFINITE_LOGITS,
        ),
    ),
    boxes=(
        Box(query="it", time_s=1.5, outcome="found", x0=1, y0=2, x1=3.6, y1=4, raw="(0,0),(1,1)"),
        Box(query="no", time_s=1.5, outcome="absent", raw="not there"),
    ),
)
FAILED = record(status="failed", code=FailureCode.TRUNCATED, detail="12 of 30 frames")


def test_results_on_a_pipe_are_plain_lines():
    text = io.StringIO()
    show([RESULTS, FAILED], Console(file=text))
    assert text.getvalue().splitlines() == [
        "clips/\ufffd[31mred\ufffd[0m.mp4: caption: A dog [bold]runs\ufffd]0;title\ufffd.",
        "clips/\ufffd[31mred\ufffd[0m.mp4: Why? 0.0-2.0 s: failed: nonfinite_logits",
        "clips/\ufffd[31mred\ufffd[0m.mp4: find it at 1.50 s: (1, 2) to (4, 4)",
        "clips/\ufffd[31mred\ufffd[0m.mp4: find no at 1.50 s: not there",
        "clips/a.mp4: failed: truncated: 12 of 30 frames",
    ]


def test_rows_of_a_demo_model_are_told_once_at_the_top_of_the_table():
    by_demo = replace(RESULTS, flags=("demo_model", "rotated"))
    text = io.StringIO()
    show([by_demo, by_demo, RESULTS], Console(file=text, force_terminal=True, no_color=True))
    assert text.getvalue().count("demo_model") == 1
    assert text.getvalue().startswith("2 rows are by a demo model (flag demo_model)")
    text = io.StringIO()
    show([RESULTS], Console(file=text, force_terminal=True, width=120))
    assert "demo" not in text.getvalue()


def test_a_batch_takes_the_demo_model_only_when_it_is_named(monkeypatch, capsys, tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    code, _, err = typed(monkeypatch, capsys, "batch", "run", str(clips), str(out))
    assert code == 2
    assert "--model is missing: a Qwen2-VL folder, or vidray-demo" in err
    assert not out.exists()
    code, _, err = typed(
        monkeypatch, capsys, "batch", "run", str(clips), str(out), "--model", "vidray-demo"
    )
    assert (code, err.splitlines()[-1]) == (2, f"vidray: no videos in {clips}")


def test_results_on_a_terminal_are_a_table_that_shows_text_as_text():
    text = io.StringIO()
    show([RESULTS, FAILED], Console(file=text, force_terminal=True, width=120, no_color=True))
    screen = text.getvalue()
    assert "[bold]runs" in screen
    assert "\x1b]0;" not in screen
    assert "truncated: 12 of 30 frames" in screen


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b2J", "a\rb", "\u202egnp.exe", "\x00"])
def test_nothing_a_model_says_moves_the_cursor(hostile):
    assert printable(hostile).isprintable()


def test_a_display_that_is_left_early_gives_the_terminal_back():
    text = io.StringIO()
    with suppress(KeyboardInterrupt), LiveDisplay(_terminal(text)) as display:
        display.begin("a.mp4")
        raise KeyboardInterrupt
    assert text.getvalue().rindex("\x1b[?25h") > text.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_at_any_width_a_display_says_what_all_wait_for_and_how_far_each_stage_is(clip, width):
    media = probe(Source.of(clip))
    plan = Planner(family=QWEN2_VL).plan(media, source_id="e")
    text = io.StringIO()
    busy = Process.here("decoder").span("generate", time.monotonic() - 1, kv_share=0.25)
    spans = {stage: replace(busy, stage=stage) for stage in ("read", "encode", "prefill")}
    with LiveDisplay(Console(file=text, force_terminal=True, width=width)) as display:
        display._gauges = Gauges(lambda: busy.ended_unix_s)  # however long it takes to draw
        display.begin("a.mp4")
        planned = replace(busy, stage="plan")
        display.hear(Planned(media=media, plan=plan, num_steps=384, span=planned))
        for stage, span in spans.items():
            display.hear(Moved(192, replace(span, stage=stage), 0, 0))
        with display._live._lock:  # its own thread draws too, whenever it likes
            text.truncate(0)
            display._live.refresh()
            screen = text.getvalue()
    assert re.search("all wait for (read|encode|prefill), KV 25%", screen)
    assert screen.count("192/384") == 3
    assert "\N{HORIZONTAL ELLIPSIS}" not in screen


def test_a_display_shows_rates_and_starts_anew_with_a_video_that_does(clip):
    media = probe(Source.of(clip))
    text = io.StringIO()
    process = Process.here("reader")
    span = process.span("read", time.monotonic() - 1, num_frames=8, num_bytes=3 << 20)
    plan = Planner(family=QWEN2_VL).plan(media, source_id="e")
    with LiveDisplay(_terminal(text)) as display:
        display.begin("a.mp4")
        for _ in range(2):  # a lost actor starts the video again
            display.hear(Planned(media=media, plan=plan, num_steps=4, span=span))
            display.hear(Moved(1, span, 0, 0))
    screen = text.getvalue()
    assert re.search(r"read .*1/4", screen)
    assert "2/4" not in screen
    assert "frames/s read" in screen
    assert "3.0 MiB on the way" in screen


def _terminal(file):
    return Console(file=file, force_terminal=True, width=120)


@pytest.fixture
def clip(tmp_path):
    return make(tmp_path, Clip(num_frames=24, fps=12, width=256, height=256))


FOUND = Box(query="it", time_s=0.5, outcome="found", x0=40, y0=150, x1=200, y1=240, raw="")


def test_boxes_are_drawn_on_the_frame_of_their_time_at_the_clips_own_size(clip, tmp_path):
    (file,) = draw_boxes(Source.of(clip), record(boxes=(FOUND,)), folder=tmp_path / "out", number=7)
    assert file.name == "007-clip-0.50s.png"
    picture = Image.open(file)
    assert picture.size == (256, 256)
    colour = tuple(int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    for corner in ((40, 150), (199, 150), (40, 239), (199, 239)):
        assert picture.getpixel(corner) == colour
    assert picture.getpixel((201, 241)) != colour
    pixels = np.asarray(picture).copy()
    column = read_barcode_of_unmarked(pixels)
    assert column == 6


def read_barcode_of_unmarked(pixels):
    """The barcode of a picture whose lower half was drawn on: rows above the boxes repeated."""
    upper = pixels[:100]
    return read_barcode(np.concatenate([upper, 255 - upper]))


def test_without_boxes_nothing_is_written(clip, tmp_path):
    absent = Box(query="it", time_s=0.5, outcome="absent", raw="")
    drawn = draw_boxes(Source.of(clip), record(boxes=(absent,)), folder=tmp_path / "o", number=1)
    assert list(drawn) == []
    assert not (tmp_path / "o").exists()


def test_a_picture_that_cannot_be_saved_leaves_no_part_behind(clip, tmp_path):
    (tmp_path / "out" / "001-clip-0.50s.png").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        list(draw_boxes(Source.of(clip), record(boxes=(FOUND,)), folder=tmp_path / "out", number=1))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["001-clip-0.50s.png"]


SEES_NO_PIXEL = (
    ("-h",),
    ("--version",),
    ("formats",),
    ("analyze", "-h"),
    ("batch", "run", "-h"),
    ("batch", "run", "clips", "out", "--max-new-tokens", "many"),
    ("profile", "show", "laptop"),
    ("show", "OUT"),
    ("fsck", "OUT"),
    ("batch", "status", "OUT"),
)


def test_what_sees_no_pixel_starts_without_torch_and_ray() -> None:
    """Seconds each: for help, a listing, or a shell that completes."""
    out = str(Path(__file__).parents[1] / "outputs" / "schema-1")
    commands = [[word.replace("OUT", out) for word in command] for command in SEES_NO_PIXEL]
    program = (
        "import sys; from jobs import cli\n"
        f"for command in {commands}:\n"
        "    sys.argv = ['vidray', *command]\n"
        "    code = cli._run()\n"
        "    loaded = {'torch', 'ray'} & sys.modules.keys()\n"
        "    assert not loaded, (command, loaded)\n"
        "    assert code in (0, 2, 3), (command, code)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "command", ["analyze", "batch run", "demo", "ingest status", "report", "show", "top", "trace"]
)
def test_help_names_values_as_people_do(command: str, vidray: Vidray) -> None:
    code, said, _ = vidray(*command.split(), "-h")
    assert code == 0
    assert not re.search(r"<(list|str|int|float|path)\b", said)
    assert f"vidray {command} [OPTIONS]" in said
