"""Promises about bad files, the quick part; tests/end_to_end has the whole table."""

from pathlib import Path

import pytest

from pipeline.errors import BadInput, FailureCode
from pipeline.video.sniff import sniff
from pipeline.video.wire import Header, ProtocolError, from_json, unpack_note
from tests.hostile import CASES, mutants, outcome, outcome_of_mutant

QUICK = ("zero bytes", "half an mp4", "audio only", "giant png", "encrypted", "one frame")


@pytest.mark.parametrize("name", QUICK)
def test_a_bad_file_has_its_outcome(name: str, tmp_path: Path) -> None:
    assert outcome(CASES[name].build(tmp_path))[0] == CASES[name].outcome


@pytest.mark.parametrize(("clip", "seed"), mutants(range(24)))
def test_a_mutant_ends_in_frames_or_a_coded_failure(clip: Path, seed: int, tmp_path: Path) -> None:
    code, _ = outcome_of_mutant(tmp_path, clip, seed)
    assert code in {"ok", *FailureCode}


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        (b"\0\0\0\x18ftypisom", "mov"),
        (b"\x1aE\xdf\xa3rest", "matroska"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        ((b"G" + bytes(187)) * 3, "mpegts"),
        ((bytes(4) + b"G" + bytes(187)) * 3, "mpegts"),
        (b"DKIF\0\0", "ivf"),
        (b"\0\0\0\x01\x67\x42\0\x1e", "h264"),
        (b"\0\0\0\x01\x40\x01\x0c\x01", "hevc"),
    ],
)
def test_a_container_is_known_by_its_first_bytes(head: bytes, demuxer: str) -> None:
    assert sniff(head, uri="any.name") == demuxer


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"", FailureCode.NOT_A_VIDEO),
        (b"G", FailureCode.NOT_A_VIDEO),
        (b"#EXTM3U\n", FailureCode.NOT_A_VIDEO),
        (b"ffconcat version 1.0\n", FailureCode.NOT_A_VIDEO),
        (b"\0\0\0\x01", FailureCode.NOT_A_VIDEO),
        (b"RIFF\0\0\0\0WEBPVP8 ", FailureCode.UNSUPPORTED_CONTAINER),
        (b"GIF89a", FailureCode.UNSUPPORTED_CONTAINER),
        (b"\x89PNG\r\n\x1a\n", FailureCode.NOT_A_VIDEO),
    ],
)
def test_what_is_no_container_on_the_list_never_reaches_the_decoder(
    head: bytes, code: FailureCode
) -> None:
    with pytest.raises(BadInput) as raised:
        sniff(head, uri="clip.mp4")
    assert raised.value.code is code


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"{" * 10_000, b'{"codec": 1}', b"\xff\xfe", b'{"x": NaN}']
)
def test_a_header_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        from_json(Header, body)


@pytest.mark.parametrize("body", [b"", b"x" * 11, b"x" * 13])
def test_a_frame_note_of_the_wrong_size_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_note(body)
