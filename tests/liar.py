"""A child that says anything: headers, stamps and marks as an attacker would make them up."""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from pipeline.analyse import failure
from pipeline.config import DecodeLimits
from pipeline.errors import BadInput, FailureCode
from pipeline.model_identity import ModelIdentity
from pipeline.tasks.records import MediaFacts, PlanFacts, to_table
from pipeline.tasks.tasks import Tasks
from pipeline.video import reader
from pipeline.video.reader import Media
from pipeline.video.sandbox import Child
from pipeline.video.source import OpenFile, Source
from pipeline.video.wire import MAX_BODY, NO_STAMP, Kind
from tests.plans import make_plan
from tests.unit.test_frame_order import header

DEMUXERS = ("mov", "matroska", "avi", "mpegts", "ivf", "h264", "png_pipe")
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 7, 255, 1 << 15, (1 << 31) - 1, 1 << 31, -(1 << 31), 1 << 40, (1 << 62) - 1),
    *(1 << 62, 1 << 63, -(1 << 63), 10**400, 0.0, -0.5, 1e-300, 1e12, 1e300, 90_000, 48_000),
]
OTHERS: list[Any] = [
    *(float("nan"), float("inf"), None, True, False, "", "x" * 400, "\ud800", "a\0b", "\x1b[2J"),
    *([], {}, [[]], [1] * 9, [1 << 40] * 9, [0] * 9, [1.5] * 9, [10**400], ["=x"], ["a"] * 99),
]
STAMPS = [0, 1, 2, 1000, -1, NO_STAMP, 1 << 33, 1 << 59, 1 << 60, -(1 << 60), (1 << 63) - 1]
BLANK = failure(
    Source.of("x"),
    Tasks(),
    ModelIdentity("m", "d"),
    video_id="v",
    error=BadInput(FailureCode.NOT_DECODABLE, "x"),
)


def lies(seed: int) -> tuple[str, list[tuple[Kind, bytes]]]:
    """A demuxer, and the messages of a child that lies."""
    dice = random.Random(seed)
    count = dice.choice((1, 1, 2, 3, 12, 40))
    said = asdict(header(dice.choice((0, 1, 2, 16)))) | {"num_packets": count}
    for _ in range(dice.choice((0, 1, 1, 1, 2, 5))):
        name = dice.choice(list(said))
        said[name] = dice.choice(dice.choice((NUMBERS, NUMBERS, OTHERS)))
    if dice.random() < 0.05:
        said.pop(dice.choice(list(said)), None)
    body = json.dumps(said).encode()
    if dice.random() < 0.1:
        at = dice.randrange(len(body))
        body = body[:at] + dice.randbytes(dice.randrange(3)) + body[at + 1 :]
    return dice.choice(DEMUXERS), [
        (dice.choices((Kind.HEADER, Kind.FAILED, Kind.DONE), (97, 2, 1))[0], body[:MAX_BODY]),
        (Kind.INDEX, _stamps(dice, count).tobytes()),
        (Kind.INDEX, bytes(dice.choices((0, 1, 2, 3, 4, 8, 255), (9, 9, 1, 1, 1, 1, 1), k=count))),
        (Kind.MEASURED, str(count).encode()),
        (Kind.INDEX, np.array([dice.randrange(count) for _ in range(count)], np.int64).tobytes()),
        (Kind.INDEX, bytes(dice.choices((0, 1), (9, 1), k=count))),
    ]


def _stamps(dice: random.Random, count: int) -> "np.ndarray[Any, Any]":
    step = dice.choice((1, 1, 40, 3600, 1 << 40, 1 << 58))
    stamps = [min(step * number, (1 << 63) - 1) for number in range(count)]
    for _ in range(dice.choice((0, 0, 1, 3))):
        stamps[dice.randrange(count)] = dice.choice(STAMPS)
    if dice.random() < 0.2:
        dice.shuffle(stamps)
    return np.array(stamps, np.int64)


class Liar(Child):
    """The parent's side as it is; nobody is on the other one."""

    def __init__(self, file: OpenFile, limits: DecodeLimits, **_: object) -> None:
        self.measures, self._limits, self._is_ready = (), limits, True

    def _tell(self, kind: Kind, body: bytes = b"") -> None:
        return

    def _receive(self) -> tuple[Kind, bytes]:
        for lie in self.lies:
            return lie
        raise BadInput(FailureCode.DECODER_CRASH, "it has nothing more to say")

    def close(self) -> None:
        return

    lies: Iterator[tuple[Kind, bytes]]


def believed(seed: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a video whose child tells these lies comes to: "ok" or a code. Its row is made as well.

    Whatever else is raised is a fault of ours.
    """
    demuxer, messages = lies(seed)
    monkeypatch.setattr(reader, "Child", Liar)
    Liar.lies = iter(messages)
    try:
        with ExitStack() as stack:
            file = OpenFile.of(0, demuxer=demuxer)
            info = Media(file, DecodeLimits(), stack).info
            plan = make_plan(info, source_id="test", long=("fit", "windows")[seed % 2])
    except BadInput as error:
        to_table([replace(BLANK, code=error.code, detail=error.detail)])
        return error.code.value
    to_table([replace(BLANK, media=MediaFacts.of(info), plan=PlanFacts.of(plan), flags=info.flags)])
    return "ok"
