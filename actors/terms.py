"""What everybody has to agree on who works with the same actors."""

import time
from dataclasses import dataclass

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError

from actors.calls import Handle
from actors.pools import NAMESPACE, PoolNames
from actors.profile import Profile
from pipeline.config import DecodeLimits
from pipeline.errors import ConfigError, Transient
from pipeline.video.libraries import Reader

LOOK_PAUSE_S = 0.25  # between two calls to a host, where one was lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Of one fleet, as whoever started it set them. checkpoint: the model's folder."""

    fleet: str
    checkpoint: str
    profile: Profile
    limits: DecodeLimits
    reader: Reader

    @property
    def names(self) -> PoolNames:
        return PoolNames.of(self.fleet, self.profile)

    def require(self, wanted: "Terms") -> None:
        """ConfigError, naming the first difference, where somebody wants what would not be done."""
        differences = {
            "the model": (self.checkpoint, wanted.checkpoint),
            "the reader": (self.reader, wanted.reader),
            "limits of decoding": (self.limits, wanted.limits),
            "numerics": (self.profile.numerics, wanted.profile.numerics),
        }
        for what, (has, wants) in differences.items():
            if has != wants:
                raise ConfigError(f"{what} of fleet {self.fleet}: {has}, not {wants}")
        has, wants = (each.profile.decoders.question_tokens for each in (self, wanted))
        if wants > has:
            raise ConfigError(
                f"fleet {self.fleet} has {has} question_tokens for a stream; {wants} are needed"
            )


def host_name(fleet: str) -> str:
    """Of the stream host whose driver started the fleet."""
    return f"{fleet}/host"


def terms_of(fleet: str, *, patience_s: float) -> Terms | None:
    """Of a fleet that runs under this name in the cluster; None if none does. Transient for one
    that does not answer.
    """
    try:
        host: Handle = ray.get_actor(host_name(fleet), namespace=NAMESPACE)
    except ValueError:
        return None
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            terms: Terms = ray.get(host.terms.remote(), timeout=patience_s)
        except (RayError, GetTimeoutError) as error:
            is_lost_call = isinstance(error, ActorUnavailableError)
            if is_lost_call and time.monotonic() < deadline_s:
                time.sleep(LOOK_PAUSE_S)
                continue
            raise Transient(f"fleet {fleet} does not answer: {type(error).__name__}") from error
        return terms
