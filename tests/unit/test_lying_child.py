"""A decoder that was taken over may say anything: nothing comes of it but its video's failure."""

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import pytest

from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode
from pipeline.video import reader
from pipeline.video.source import OpenFile
from pipeline.video.wire import Kind
from tests.liar import Liar, believed
from tests.unit.test_frame_order import header

SEEDS = 4_000


def test_whatever_a_child_claims_of_a_file_is_a_plan_or_a_failure_of_its_video(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = Counter(believed(seed, monkeypatch) for seed in range(SEEDS))
    assert set(outcomes) <= {"ok", *FailureCode}
    # Lies that nobody could tell from the truth are among them, and those that go far.
    assert min(outcomes["ok"], outcomes["decoder_protocol"]) > SEEDS / 10
    assert len(outcomes) >= 4


@pytest.mark.parametrize(
    "lie",
    [
        {"coded_height": 1 << 20, "row_width": 1 << 20},  # its frames would take all memory
        {"row_width": 1},  # less than the picture
        {"matrix": [1] * 4},
        {"flags": ["UPPER"]},
    ],
    ids=str,
)
def test_a_picture_that_no_honest_child_could_claim_is_refused(
    lie: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = asdict(header(2)) | {"num_packets": 2} | lie
    monkeypatch.setattr(reader, "Child", Liar)
    Liar.lies = iter([(Kind.HEADER, json.dumps(said).encode())])
    with ExitStack() as stack, pytest.raises(BadInput, match="no such picture") as refused:
        reader.Media(OpenFile.of(0, demuxer="mov"), DecodeLimits(), stack)
    assert refused.value.code is FailureCode.DECODER_PROTOCOL
