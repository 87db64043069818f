"""Who joins a fleet is told what it was started for, instead of rows that were not asked for."""

from dataclasses import replace

import pytest

from actors.profile import DecoderPool, Profile
from actors.terms import Terms
from pipeline.config import DecodeLimits
from pipeline.errors import ConfigError

TERMS = Terms(
    fleet="main", checkpoint="/m", profile=Profile(), limits=DecodeLimits(), reader="pyav"
)


def profile(**decoders: object) -> Profile:
    return Profile(name="other", decoders=DecoderPool(**decoders))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        (replace(TERMS, checkpoint="/n"), "the model of fleet main: /m, not /n"),
        (replace(TERMS, reader="decord"), "the reader"),
        (replace(TERMS, limits=DecodeLimits(wall_s=1.0)), "limits of decoding"),
        (replace(TERMS, profile=profile(int8=True)), "numerics"),
        (replace(TERMS, profile=profile(question_tokens=4_096)), "2048 question_tokens"),
    ],
)
def test_what_would_not_be_done_is_refused_by_name(wanted: Terms, word: str):
    with pytest.raises(ConfigError, match=word):
        TERMS.require(wanted)


def test_how_many_actors_somebody_would_have_started_does_not_matter():
    TERMS.require(replace(TERMS, profile=profile(num_replicas=4, question_tokens=1_024)))
