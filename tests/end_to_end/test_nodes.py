"""Nodes of a cluster that are lost under a job: one costs time, the head costs the job's run."""

from pathlib import Path

import pytest

from jobs.lab.soak.two_nodes import two_nodes
from pipeline.store.open import open_store
from tests.batch_runs import (
    DEADLINE_S,
    assert_complete,
    begin,
    end,
    let_begin,
    until_heard,
    vidray,
    words,
)
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

NUM_CLIPS = 24
# A decoder takes most of a node, so that there is one on each.
PROFILE = """
name: two nodes
stall_s: 10
recover_s: 200
videos_in_flight: 2
readers: {num_cpus: 0.1}
encoders: {num_cpus: 0.1, num_threads: 1}
decoders: {num_replicas: 2, num_cpus: 1.5, num_threads: 1, kv_tokens: 32768}
"""

HASTY = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}  # Ray's own patience with its head is 60


def test_a_lost_node_costs_time_and_a_lost_head_a_run_that_is_gone_on_with(tmp_path: Path) -> None:
    clips, out, events = tmp_path / "clips", tmp_path / "out", tmp_path / "events.jsonl"
    held = tmp_path / "held"
    clips.mkdir()
    for number in range(NUM_CLIPS):
        make(clips, Clip(num_frames=12 + number), f"clip{number:02d}")
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE)
    flags = ("--model", write_folder(tmp_path / "model"), "--max-new-tokens", 40,
             "--videos-per-part", 2)  # fmt: skip
    plain = vidray("batch", "run", clips, tmp_path / "plain", *flags, "--in-process")
    assert plain.returncode == 0, plain.stderr
    with two_nodes() as nodes:
        place = ("--profile", profile, "--address", nodes.address)
        driver = begin(events, clips, out, *flags, *place, held=held, **nodes.environment, **HASTY)
        try:
            let_begin(held, 4)
            until_heard(events, "part", driver)
            let_begin(held, 14)
            nodes.lose_other()
            until_heard(events, "part", driver, times=5)
            let_begin(held, NUM_CLIPS - 2)  # so that it cannot end
            nodes.lose_head()
            _, said = driver.communicate(timeout=DEADLINE_S)
        finally:
            end(driver)
    assert driver.returncode not in (0, 3), said
    store = open_store(str(out))
    kept = {info.key: info.etag for info in store.scan("parts/part-")}
    assert 4 <= len(kept) < NUM_CLIPS // 2
    done = vidray("batch", "run", clips, out, *flags, "--in-process")
    assert done.returncode == 0, done.stderr
    assert kept.items() <= {info.key: info.etag for info in store.scan("parts/part-")}.items()
    assert_complete(store)
    assert words(store) == words(open_store(str(tmp_path / "plain")))
