"""How many ranks the chaos trial hurts: more than one, whatever the checkpoint's heads."""

from dataclasses import replace

import pytest

from jobs.lab.soak.chaos import _fewest_ranks
from jobs.models import DEMO_MODEL
from pipeline.families.qwen2_vl.config import load_config


@pytest.mark.parametrize(("num_kv_heads", "num_ranks"), [(1, 2), (2, 2), (3, 3), (4, 2), (8, 2)])
def test_the_fewest_ranks_among_which_the_heads_can_be_dealt(num_kv_heads, num_ranks):
    config = replace(load_config(DEMO_MODEL), num_heads=24, num_kv_heads=num_kv_heads)
    assert _fewest_ranks(config) == num_ranks
