"""How to reach S3: endpoint, region, keys, time-outs; from the usual variables or files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.store.retry import RetryPolicy
from pipeline.store.s3_keys import S3Keys, region_of

_AWS = "https://s3.amazonaws.com"
PATIENCE = RetryPolicy(attempts=16)  # a server that restarts refuses for half a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """Everything a client needs; secrets never show in its repr.

    endpoint: http(s)://host[:port]. connect_timeout_s bounds each send too, read_timeout_s each
    silence; a transfer below min_bytes_per_s is given up and resumed.
    """

    endpoint: str = _AWS
    keys: S3Keys | None = None  # None: anonymous
    region: str = "us-east-1"
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0  # contended keys answer slowly, up to 3 s seen
    min_bytes_per_s: int = 32 * 1024
    max_connections: int = 32
    retry: RetryPolicy = PATIENCE

    def __post_init__(self) -> None:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
            raise ConfigError(f"an S3 endpoint is http(s)://host[:port], got {self.endpoint!r}")
        if min(self.connect_timeout_s, self.read_timeout_s, self.min_bytes_per_s) <= 0:
            raise ConfigError("S3 time-outs and the least speed must be positive")

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc

    @property
    def secure(self) -> bool:
        return urlsplit(self.endpoint).scheme == "https"

    @property
    def reached(self) -> str:
        """Where it is and how it is reached, for people; never the keys."""
        keys = self.keys.source if self.keys else "no keys"
        return f"{self.endpoint} ({self.region}) with {keys}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "S3Config":
        """Read AWS_* variables; keys are looked for at the first request, as S3Keys says.

        AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL; AWS_REGION, AWS_DEFAULT_REGION or the region of
        AWS_PROFILE; AWS_MAX_ATTEMPTS of each request.
        """
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        return cls(
            endpoint=(endpoint or _AWS).rstrip("/"),
            keys=S3Keys(environment),
            region=region_of(environment),
            retry=replace(PATIENCE, attempts=_attempts(environment)),
        )


def _attempts(environment: Mapping[str, str]) -> int:
    written = environment.get("AWS_MAX_ATTEMPTS") or str(PATIENCE.attempts)
    if not written.isdecimal() or int(written) < 1:
        raise ConfigError(f"AWS_MAX_ATTEMPTS must be a whole number from 1 on, got {written!r}")
    return int(written)
