"""`vidray plan`: what headers, arithmetic and a table of hardware say of a job to come."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from jobs.exits import Exit
from jobs.models import DEMO_MODEL
from jobs.plan.calibration import Calibration, CalibrationTrial, fit, keep, load_calibration
from jobs.plan.estimate import estimate, streams_of
from jobs.plan.fit import card_memory, problems
from jobs.plan.hardware import CARDS, CORE, Cost, Costs, card_costs, find_card
from jobs.plan.load import Asking, Load, load_of
from jobs.plan.options import Outlook
from jobs.plan.outlook import make_plan
from jobs.plan.plan_command import run
from jobs.plan.processes import Meter, Used, held_bytes, num_cores
from jobs.plan.scan import Scan, Scanned
from jobs.workplace import machine_profile
from pipeline.config import GIB, MIB, Sampling
from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.tasks.tasks import Ask, Tasks
from pipeline.types import MediaInfo
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner
from tests.media_factory import Clip, make

H100 = find_card("h100")
CLIPS = Load(
    videos=1_000, seconds=60_000, tokens=8_640_000, pixels=1e12, chunks=9_000, views=1_000,
    tower_flops=5.2e16, prefill_flops=1.3e17, answers=1_000, words=64_000, kv_tokens=8_800_000,
)  # fmt: skip
GPU8 = Profile(
    device="cuda",
    dtype="bfloat16",
    readers=ReaderPool(num_actors=16, num_cpus=1),
    encoders=EncoderPool(num_actors=8, num_gpus=0.1),
    decoders=DecoderPool(tensor_parallel=8, num_gpus=0.9, kv_tokens=262_144),
    videos_in_flight=8,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for number in range(3):
        make(folder, Clip(num_frames=24, fps=12), f"clip{number}")
    (folder / "bad.mp4").write_text("this is no video")
    (folder / "notes.txt").write_text("not to be missed unseen")
    return folder


def shown(archive: Path, **told: object) -> tuple[int, str]:
    out = io.StringIO()
    code = run(Outlook(source=str(archive), **told), Console(file=out, width=200))
    return code, out.getvalue()


def test_a_published_size_is_planned_for_without_a_checkpoint(archive: Path) -> None:
    code, text = shown(archive, model="7b", profile="gpu1-7b", price_gpu_hour=2.0, ask=("Why?",))
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
    assert code == Exit.OK
    assert lines["videos"].startswith("4, all headers read; 6 s")
    assert lines["frames"].split() == ["12"]
    assert "in 6 answers" in lines["words"]
    assert "1 file passed over: .txt 1" in lines["others"]
    assert "waits for:" in lines["time"]
    assert float(lines["money"]) == pytest.approx(2 * float(lines["GPU-hours"].split()[0]), abs=0.1)
    assert "note: of 4 videos some cannot be planned: 1 not_a_video" in text


@pytest.mark.parametrize("profile", ["gpu1-7b", "laptop"])
def test_where_nothing_can_be_planned_that_and_why_is_all_that_is_said(
    archive: Path, profile: str
) -> None:
    code, text = shown(archive, model="7b", profile=profile, start=500.0)
    assert code == Exit.FAILED
    assert text == "nothing can be planned of 4 videos: 3 empty_range, 1 not_a_video\n"


def test_what_will_not_fit_on_a_card_is_said_with_the_figures_and_a_way_out(archive: Path) -> None:
    code, text = shown(archive, model="72B", profile="gpu1-7b", card="L4")
    assert code == Exit.FAILED
    assert re.search(r"will not fit: L4-24: 13\d\.\d GiB of weights a rank", " ".join(text.split()))
    assert "no split of up to 8 ranks has room" in " ".join(text.split())


def test_what_is_misnamed_is_told_with_what_there_is(archive: Path) -> None:
    with pytest.raises(ConfigError, match="--model is missing: 2b, 7b, 72b"):
        shown(archive)
    with pytest.raises(ConfigError, match="no card 'V100'; there are A100-80"):
        shown(archive, model="2b", profile="gpu1-7b", card="V100")
    with pytest.raises(ConfigError, match="profile gpu8-72b takes 8 GPUs; --gpus is 4"):
        shown(archive, model="72b", profile="gpu8-72b", gpus=4)
    with pytest.raises(ConfigError, match="profile laptop computes without GPUs"):
        shown(archive, model="2b", gpus=4)


def test_fleets_share_the_work_and_cost_as_much(archive: Path) -> None:
    console = Console(file=io.StringIO())
    told = {"source": str(archive), "model": "72b", "profile": "gpu8-72b"}
    one, eight = (make_plan(Outlook(**told, gpus=gpus), console).estimate for gpus in (8, 64))
    assert (one.num_fleets, eight.num_fleets) == (1, 8)
    assert one.work_s == pytest.approx(8 * eight.work_s)
    assert one.bottleneck.name == eight.bottleneck.name


def test_a_sample_says_how_far_it_may_be_off() -> None:
    def scan(num_videos: int, tokens: list[float]) -> Scan:
        seen = tuple(
            Scanned(load=Load(tokens=each), view_tokens=1, chunk_bytes=1) for each in tokens
        )
        return Scan(
            num_videos=num_videos, num_sampled=len(tokens), seen=seen, codes={}, passed_over={}
        )

    whole, sample = scan(3, [100, 200, 300]), scan(300, [100, 200, 300])
    assert (whole.uncertainty, sample.load.tokens) == (0.0, 60_000)
    assert sample.uncertainty == pytest.approx(1.96 * 100 / 3**0.5 / 200, rel=0.01)
    assert scan(300, [200, 200, 200]).uncertainty == 0


def test_ten_hours_in_windows_ask_for_all_windows_and_for_bringing_them_together() -> None:
    tasks = Tasks(asks=(Ask(question="Who?"),), sampling=Sampling(max_new_tokens=64))
    asking = Asking.of(SIZES["7B"], tasks, words=64)
    media = MediaInfo(
        container="mov", codec="h264", pixel_format="yuv420p", width=640, height=360,
        coded_width=640, coded_height=360, rotation_deg=0, is_mirrored=False,
        sample_aspect_ratio=1.0, time_base_num=1, time_base_den=1, pts=np.arange(36_000),
        is_key=np.ones(36_000, np.bool_), duration_s=36_000.0, declared_duration_s=36_000.0,
        is_still=False,
    )  # fmt: skip
    planner = Planner(family=QWEN2_VL, options=PlanOptions(long="windows", fps=1.0))
    plan = planner.plan(media, source_id="x")
    load = load_of(media, plan, asking, still_at=lambda time_s: plan)
    num_windows = len(plan.windows)
    assert load.views == num_windows > 4
    assert load.tokens == plan.num_tokens
    texts = -(-num_windows // asking.max_parts)
    assert load.answers >= 2 * (num_windows + texts)
    assert load.words == 64 * load.answers


def test_memory_of_a_card_is_what_model_check_says_and_the_budget() -> None:
    memory = card_memory(SIZES["72B"], GPU8, H100, vision=699_000_000)
    assert memory.kv == 262_144 * 40_960  # as the profile's own comment has it
    assert memory.weights / GIB == pytest.approx(15.8, abs=0.1)
    assert memory.is_enough
    tight = GPU8.model_copy(
        update={"decoders": GPU8.decoders.model_copy(update={"kv_tokens": 4_000_000})}
    )
    scan = Scan(num_videos=1, num_sampled=1, seen=(), codes={}, passed_over={})
    told = {"vision": 699_000_000, "language": 72_700_000_000, "words": 64, "machine_bytes": GIB}
    (problem,) = problems(scan, SIZES["72B"], tight, card=H100, **told)
    assert problem.stops
    assert "kv_tokens 1," in problem.text
    assert problem.text.endswith("would fit")


def test_weights_that_a_machine_without_cards_cannot_hold_will_not_fit() -> None:
    scan = Scan(num_videos=1, num_sampled=1, seen=(), codes={}, passed_over={})
    told = {"card": None, "vision": 7e8, "language": 7e9, "words": 64}
    assert not [*problems(scan, SIZES["7B"], Profile(), **told, machine_bytes=32 * GIB)]
    (problem,) = problems(scan, SIZES["7B"], Profile(), **told, machine_bytes=24 * GIB)
    assert problem.stops
    assert problem.text.startswith("28.7 GiB of weights, 1 x decoder and 1 x encoder in float32")
    assert "this machine has 24.0 GiB" in problem.text


def test_the_slowest_stage_is_named_and_more_of_it_help_until_another_is() -> None:
    costs = card_costs(
        SIZES["72B"], H100, CLIPS, tensor_parallel=8, streams=streams_of(GPU8, CLIPS)
    )
    found = estimate(CLIPS, costs, GPU8, cores=1, num_fleets=1, start_s=0)
    assert found.num_gpus == 8
    slow_reading = replace(costs, reader=Cost(video_s=60.0))
    assert estimate(
        CLIPS, slow_reading, GPU8, cores=1, num_fleets=1, start_s=0
    ).bottleneck.name in ("readers", "videos in flight")
    fetched = estimate(
        replace(CLIPS, size_bytes=3e15), costs, GPU8, cores=1, num_fleets=2, start_s=0,
        is_fetched=True,
    )  # fmt: skip
    assert (fetched.bottleneck.name, fetched.bottleneck.workers) == ("downloads", 2)
    slow_host = replace(costs, host=Cost(video_s=60.0))
    named = estimate(CLIPS, slow_host, GPU8, cores=1, num_fleets=1, start_s=0).bottleneck
    assert (named.name, named.time_s) == ("stream host", 60_000)


def _used(seconds: dict[str, float]) -> Used:
    return Used(wall_s=1.0, seconds=seconds, others_s=0.0)


def test_costs_that_made_the_trials_are_found_again() -> None:
    true = Costs(
        reader=Cost(video_s=0.02, work_s=2e-9), encoder=Cost(chunk_s=0.004, work_s=1e-11),
        decoder=Cost(chunk_s=0.003, work_s=2e-11, word_s=0.001), host=Cost(video_s=0.01),
        rest=Cost(video_s=0.005, word_s=0.0001), origin="",
    )  # fmt: skip
    loads = [
        Load(videos=24, pixels=videos * 1e6, chunks=chunks, tower_flops=chunks**1.3 * 3e8,
             prefill_flops=chunks**1.5 * 1e8, words=words)
        for videos, chunks in ((100, 48), (900, 200)) for words in (24.0, 600.0)
    ]  # fmt: skip

    def seconds(cost: Cost, load: Load, work: float) -> float:
        return (
            cost.video_s * load.videos + cost.chunk_s * load.chunks
            + cost.work_s * work + cost.word_s * load.words
        )  # fmt: skip

    trials = [
        CalibrationTrial(
            each,
            _used(
                {
                    "reader": seconds(true.reader, each, each.pixels),
                    "encoder": seconds(true.encoder, each, each.tower_flops),
                    "decoder": seconds(true.decoder, each, each.prefill_flops),
                    "host": seconds(true.host, each, 0),
                    "rest": seconds(true.rest, each, 0),
                }
            ),
        )
        for each in loads
    ]
    found = fit(trials)
    for role in ("reader", "encoder", "decoder", "host", "rest"):
        for name in ("video_s", "chunk_s", "work_s", "word_s"):
            expected = getattr(getattr(true, role), name)
            assert getattr(getattr(found, role), name) == pytest.approx(
                expected, rel=1e-3, abs=1e-15
            )


def test_every_card_reads_a_2b_faster_than_a_7b() -> None:
    for card in CARDS:
        two, seven = (
            card_costs(SIZES[name], card, CLIPS, tensor_parallel=1, streams=8).decoder
            for name in ("2B", "7B")
        )
        assert two.word_s <= seven.word_s
        assert two.chunk_s <= seven.chunk_s


def test_time_of_children_that_have_ended_is_counted_and_all_memory_once() -> None:
    meter = Meter({})
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-S", "-c", burn], check=True)
    used = meter.read()
    assert 0.15 <= used.seconds["rest"] < 5  # Linux counts in ticks and drops what is less than one
    assert used.total_s == pytest.approx(sum(used.seconds.values()))
    assert 0 <= used.free <= num_cores()
    assert held_bytes() > 20 * MIB


def test_a_calibration_is_kept_for_its_model_and_profile_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = Calibration(costs=CORE, cores=1.5, memory_bytes=1e9, kv_tokens=400.0, words=12.5)
    assert load_calibration(DEMO_MODEL, Profile()) is None
    keep(found, DEMO_MODEL, Profile())
    assert load_calibration(DEMO_MODEL, Profile()) == found
    assert load_calibration(DEMO_MODEL, Profile(videos_in_flight=4)) is None
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text("{}")
    assert load_calibration(DEMO_MODEL, Profile()) is None


def test_what_was_measured_here_is_used_and_said(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _, before = shown(archive, model="vidray-demo")
    assert "not on this machine: --calibrate" in before
    costs = replace(CORE, reader=Cost(video_s=100.0), origin="measured on this machine")
    found = Calibration(costs=costs, cores=1.0, memory_bytes=2**30, kv_tokens=400.0, words=12.5)
    keep(found, DEMO_MODEL, machine_profile())
    _, after = shown(archive, model="vidray-demo")
    assert "measured on this machine" in after
    assert "12.5 each" in after
    assert re.search(r"0:05:0\d to work; waits for: cores", after)
    assert re.search(r"memory +[91],?\d+ MiB of all processes", after)
