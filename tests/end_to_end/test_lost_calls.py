"""Calls between actors get lost, or their answers: the same rows, and nobody waits for ever."""

import json
import subprocess
from pathlib import Path

import pytest

from pipeline.store.open import open_store
from pipeline.store.s3_config import S3Config
from tests.batch_runs import DEADLINE_S, VIDRAY, assert_complete, environment, vidray, words
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

pytestmark = pytest.mark.timeout(600)

NUM_CLIPS = 6
PERCENT = 3
LOSSES = {
    "CoreWorkerService.grpc_client.PushTask": {
        "num_failures": -1,  # without end
        "req_failure_prob": PERCENT,
        "resp_failure_prob": PERCENT,
        "in_flight_failure_prob": 0,
    }
}
# Of twenty calls for a video one is lost almost always: it is tried until none is.
PROFILE = """
name: lossy
stall_s: 10
max_attempts: 200
"""


def test_calls_that_get_lost_change_no_row(tmp_path: Path) -> None:
    clips, model = tmp_path / "clips", write_folder(tmp_path / "model", max_pixels=CHUNKED_PIXELS)
    clips.mkdir()
    for number in range(NUM_CLIPS):
        make(clips, Clip(num_frames=12 + number, **CHUNKED), f"clip{number}")
    profile = tmp_path / "lossy.yaml"
    profile.write_text(PROFILE)
    flags = ["--model", model, "--max-new-tokens", "8", "--profile", profile]
    undisturbed = vidray("batch", "run", clips, tmp_path / "plain", *flags)
    assert undisturbed.returncode == 0, undisturbed.stderr
    disturbed = subprocess.run(
        [str(VIDRAY), "batch", "run", *map(str, (clips, tmp_path / "lossy", *flags))],
        env=environment(RAY_testing_rpc_failure=json.dumps(LOSSES)),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert disturbed.returncode == 0, disturbed.stderr
    s3 = S3Config.from_environment({})
    plain, lossy = (open_store(str(tmp_path / name), s3) for name in ("plain", "lossy"))
    assert_complete(lossy)
    assert words(lossy) == words(plain)
