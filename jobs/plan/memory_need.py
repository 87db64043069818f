"""Memory of a fleet on a machine without GPUs: what was measured, and what other clips change."""

from actors.profile import Profile
from jobs.plan.calibration import Calibration
from jobs.plan.estimate import streams_of
from jobs.plan.load import Load
from pipeline.config import ModelConfig

ELEMENT_BYTES = 4  # float32


def memory_bytes(
    calibration: Calibration, load: Load, config: ModelConfig, profile: Profile
) -> float:
    """Of all processes at the peak: processes as measured, keys and values computed."""
    own = load.kv_tokens / max(load.views, 1e-9)
    per_token = config.kv_bytes_per_token(element_bytes=ELEMENT_BYTES)
    more = (own - calibration.kv_tokens) * streams_of(profile, load) * per_token
    return calibration.memory_bytes + more * profile.decoders.num_replicas
