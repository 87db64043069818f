"""An engine that is not there, or that nobody has tried, is refused before anything starts."""

import importlib.util
from pathlib import Path

import pytest

from actors.launch import start_fleet
from actors.profile import DecoderPool, Profile
from actors.vllm.version import TESTED, require_tested
from jobs.workplace import Workplace
from pipeline.errors import ConfigError


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_a_fleet_that_wants_it_says_how_to_install_it(tmp_path: Path):
    profile = Profile(decoders=DecoderPool(engine="vllm"))
    with (
        pytest.raises(ConfigError, match=r"not installed: pip install 'vidray\[vllm\]'"),
        start_fleet(tmp_path, profile=profile),
    ):
        pass


@pytest.mark.parametrize("version", ["0.31.9", "0.33.0", "0.32.0rc1", "1.0"])
def test_another_version_than_the_tested_ones_is_refused_by_name(version: str):
    with pytest.raises(ConfigError, match=f"tested with vLLM {TESTED[0]}, got {version}"):
        require_tested(version)


def test_what_a_build_adds_to_a_version_does_not_matter():
    assert require_tested("0.32.0+cpu") == "0.32.0"


def test_what_only_our_own_engine_does_is_refused_with_vllm():
    with pytest.raises(ValueError, match="int8 is of vidray's own engine"):
        DecoderPool(engine="vllm", int8=True)


def test_rounding_asked_for_beside_a_profile_for_vllm_is_refused_not_forgotten():
    workplace = Workplace(profile=Path("gpu1-7b-vllm"))
    with pytest.raises(ConfigError, match="gpu1-7b-vllm: int8 is of vidray's own engine"):
        workplace.numerics(int8=True)
