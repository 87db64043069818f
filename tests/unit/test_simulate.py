"""Simulated clusters: the product's own code in virtual time keeps its promises there, too."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from jobs.lab.gpu.shapes import small
from jobs.lab.simulate.scale import MEDIA as ARCHIVE_MEDIA
from jobs.lab.simulate.scale import Point, many_fleets, shared_job
from jobs.lab.simulate.scale_picture import Curve, svg
from jobs.lab.simulate.simulated_fleet import World, gpu_costs, simulate
from jobs.lab.simulate.simulated_job import GONE, Downtime, Driver, simulate_job
from jobs.plan.hardware import CORE, Cost, find_card
from pipeline.errors import FailureCode
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.tasks.tasks import Tasks
from pipeline.types import MediaInfo

H100 = find_card("h100")
NUM_VIDEOS = 24


def clip(duration_s: int) -> MediaInfo:
    num_frames = 30 * duration_s
    return MediaInfo(
        container="mov", codec="h264", pixel_format="yuv420p", width=640, height=360,
        coded_width=640, coded_height=360, rotation_deg=0, is_mirrored=False,
        sample_aspect_ratio=1.0, time_base_num=1, time_base_den=30, pts=np.arange(num_frames),
        is_key=np.arange(num_frames) % 60 == 0, duration_s=float(duration_s),
        declared_duration_s=None, is_still=False,
    )  # fmt: skip


MEDIA = {"short": clip(10), "long": clip(60)}
SOURCES = ["short", "long"] * (NUM_VIDEOS // 2)
WORLD = World(
    config=SIZES["7B"],
    family=QWEN2_VL,
    costs=gpu_costs(H100),
    profile=Profile(
        device="cuda",
        readers=ReaderPool(num_actors=16, num_cpus=1),
        encoders=EncoderPool(num_gpus=0.2),
        decoders=DecoderPool(num_gpus=0.8, kv_tokens=200_000),
    ),
    words=16,
    card=H100,
)


def test_a_fleet_whose_card_is_busy_takes_as_long_as_its_card() -> None:
    run = simulate(WORLD, MEDIA, SOURCES, Tasks())
    assert (run.num_videos, run.num_failed) == (NUM_VIDEOS, 0)
    assert run.busy["GPUs"] > 0.8
    assert run.num_calls > 4 * NUM_VIDEOS


def test_a_slow_stream_host_holds_up_any_number_of_cards() -> None:
    slow = replace(WORLD, costs=replace(WORLD.costs, host=Cost(video_s=1.0, chunk_s=0.1)))
    run = simulate(slow, MEDIA, SOURCES, Tasks())
    assert run.busy["stream host"] > 0.95
    assert run.busy["GPUs"] < 0.5


def test_decoders_that_die_cost_time_and_no_video() -> None:
    pool = WORLD.profile.decoders.model_copy(update={"num_replicas": 2})
    profile = WORLD.profile.model_copy(update={"decoders": pool, "max_attempts": 10})
    mortal = replace(WORLD, profile=profile, death_s=2.0, load_s=0.5)
    run = simulate(mortal, MEDIA, SOURCES, Tasks())
    assert run.num_deaths > 1
    assert (run.num_videos, run.num_failed) == (NUM_VIDEOS, 0)


def test_stages_that_share_cores_take_what_all_of_them_want() -> None:
    world = replace(WORLD, card=None, costs=CORE, profile=Profile(), cores=2.0)
    world = replace(world, config=small(SIZES["2B"]))
    one = simulate(world, MEDIA, ["short"] * 8, Tasks())
    half = simulate(replace(world, cores=1.0), MEDIA, ["short"] * 8, Tasks())
    assert half.seconds == pytest.approx(2 * one.seconds, rel=0.1)


CLIPS = {"clip": 4.0, "film": 240.0, GONE: 1.0}
DRIVER = Driver(places=4, held_s=CLIPS)


def test_more_stream_hosts_hold_up_no_card() -> None:
    pool = WORLD.profile.model_copy(update={"stream_hosts": 2})
    slow = replace(WORLD, costs=replace(WORLD.costs, host=Cost(video_s=1.0, chunk_s=0.1)))
    one = simulate(slow, MEDIA, SOURCES, Tasks())
    two = simulate(replace(slow, profile=pool), MEDIA, SOURCES, Tasks())
    assert two.num_failed == 0
    assert two.videos_per_s > 1.7 * one.videos_per_s


def test_a_fleet_as_places_takes_as_long_as_chunk_by_chunk() -> None:
    profile = WORLD.profile.model_copy(update={"videos_in_flight": 8})
    world, kinds = replace(WORLD, profile=profile), SOURCES * 4
    alone = simulate(world, MEDIA, kinds, Tasks())
    exact, coarse = (
        simulate_job(kinds, [driver] * 2, media=MEDIA, videos_per_part=2)
        for driver in (Driver(world=world), Driver(places=10, held_s=alone.held_s))
    )
    assert exact.num_rows == coarse.num_rows == len(kinds)
    # At the end, where places are empty, the videos that are left are quicker than as places.
    assert exact.seconds == pytest.approx(coarse.seconds, rel=0.2)


def test_drivers_that_come_late_and_go_early_leave_every_row_there_once() -> None:
    drivers = [DRIVER, replace(DRIVER, leaves_s=30.0), replace(DRIVER, joins_s=45.0)]
    run = simulate_job(["clip"] * 319 + ["film"], drivers, videos_per_part=4)
    assert run.num_rows == run.num_videos == 320
    assert run.made >= 320
    assert 130 < run.seconds < 400


def test_many_drivers_do_nothing_twice_and_ask_the_store_little() -> None:
    num_parts, num_drivers = 300, 50
    kinds = ["clip"] * (4 * num_parts - 1) + ["film"]  # which all others wait for
    run = simulate_job(kinds, [DRIVER] * num_drivers, videos_per_part=4)
    assert run.made == run.num_videos
    assert run.requests["put"] < 3 * num_parts
    assert run.requests.total() < 40 * num_parts


def test_drivers_beyond_the_parts_make_none_again() -> None:
    late = replace(DRIVER, joins_s=1.0)
    kinds = ["film"] * 32
    run = simulate_job(kinds, [DRIVER] * 8 + [late] * 24, videos_per_part=4)
    assert run.made == run.num_videos == 32


def test_whatever_fails_everybody_costs_no_innocent_video_its_row() -> None:
    store = Downtime(begins_s=10.0, ends_s=200.0, code=FailureCode.SOURCE_UNREADABLE)
    cards = Downtime(begins_s=5.0, ends_s=1e9, code=FailureCode.WORKER_LOST)
    drivers = [
        replace(DRIVER, downtimes=(store,)),
        replace(DRIVER, downtimes=(cards,)),
        replace(DRIVER, leaves_s=20.0),
        DRIVER,
    ]
    kinds = [GONE if number % 100 == 7 else "clip" for number in range(600)]
    run = simulate_job(kinds, drivers, videos_per_part=4)
    assert run.num_rows == 600
    assert run.codes == {FailureCode.NOT_FOUND: 6}
    assert run.num_stopped == 1  # whose cards never came back


def test_the_picture_is_an_svg_with_a_point_for_every_size() -> None:
    points = [
        Point(gpus=gpus, fleets=1, videos_per_s=0.9 * gpus, bottleneck="GPUs")
        for gpus in (1, 8, 4096)
    ]
    curve = Curve(label="7B & more", colour="#123456", points=points)
    root = ElementTree.fromstring(  # noqa: S314 - our own
        svg([curve], title="a < b", limits=[(2_750.0, "S3")])
    )
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"7B & more", "a < b", "4,096", "S3"} <= set(texts)
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[-1] == "4,096 GPUs: 3.69e+03/s, GPUs"


def test_more_fleets_do_more_until_something_that_they_share_is_full() -> None:
    held_s = dict.fromkeys(ARCHIVE_MEDIA, 50.0)
    fleet = Point(gpus=1, fleets=1, videos_per_s=0.6, bottleneck="GPUs", places=30, held_s=held_s)
    job = shared_job(fleet, 16)
    few, many = (many_fleets(fleet, shared_job(fleet, gpus), gpus=gpus) for gpus in (2, 16))
    assert few.videos_per_s == pytest.approx(2 * 0.6)
    assert many.videos_per_s == pytest.approx(16 * 0.6)
    assert job.made == job.num_videos
    fast = replace(fleet, held_s=dict.fromkeys(ARCHIVE_MEDIA, 1.0))
    point = many_fleets(fast, shared_job(fast, 2), gpus=2)
    assert point.bottleneck == "downloads"
    assert point.videos_per_s < 2 * 30
