"""How to reach S3: endpoint, credentials, time-outs; from the usual variables or a file."""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.store.retry import RetryPolicy

_AWS = "https://s3.amazonaws.com"
PATIENCE = RetryPolicy(attempts=16)  # a server that restarts refuses for half a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """Everything a client needs; secrets never show in its repr.

    endpoint: http(s)://host[:port]. connect_timeout_s bounds each send too, read_timeout_s each
    silence; a transfer below min_bytes_per_s is given up and resumed.
    """

    endpoint: str = _AWS
    access_key: str | None = None  # None: anonymous
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
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
        if (self.access_key is None) != (self.secret_key is None):
            raise ConfigError("S3 needs both an access key and a secret key, or neither")
        if min(self.connect_timeout_s, self.read_timeout_s, self.min_bytes_per_s) <= 0:
            raise ConfigError("S3 time-outs and the least speed must be positive")

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc

    @property
    def secure(self) -> bool:
        return urlsplit(self.endpoint).scheme == "https"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "S3Config":
        """Read AWS_* variables; keys may stand in a shared credentials file instead.

        AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; else the AWS_PROFILE section
        ("default") of AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials). AWS_ENDPOINT_URL_S3 or
        AWS_ENDPOINT_URL; AWS_REGION or AWS_DEFAULT_REGION; AWS_MAX_ATTEMPTS of each request.
        """
        keys: Mapping[str, str] = {name.lower(): value for name, value in environment.items()}
        if "aws_access_key_id" not in keys:
            keys = _credentials_file(environment)
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        return cls(
            endpoint=(endpoint or _AWS).rstrip("/"),
            access_key=keys.get("aws_access_key_id"),
            secret_key=keys.get("aws_secret_access_key"),
            session_token=keys.get("aws_session_token"),
            region=region or "us-east-1",
            retry=replace(PATIENCE, attempts=_attempts(environment)),
        )


def _attempts(environment: Mapping[str, str]) -> int:
    written = environment.get("AWS_MAX_ATTEMPTS") or str(PATIENCE.attempts)
    if not written.isdecimal() or int(written) < 1:
        raise ConfigError(f"AWS_MAX_ATTEMPTS must be a whole number from 1 on, got {written!r}")
    return int(written)


def _credentials_file(environment: Mapping[str, str]) -> Mapping[str, str]:
    named = environment.get("AWS_SHARED_CREDENTIALS_FILE")
    default = Path(environment.get("HOME", "/")) / ".aws" / "credentials"
    profile = environment.get("AWS_PROFILE", "default")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        read = parser.read(named or default, encoding="utf-8")
    except configparser.Error as error:
        raise ConfigError("the S3 credentials file is not in INI format") from error
    if named and not read:
        raise ConfigError(f"AWS_SHARED_CREDENTIALS_FILE names no readable file: {named}")
    if profile not in parser:
        if "AWS_PROFILE" in environment:
            raise ConfigError(f"AWS_PROFILE {profile!r} is not in the S3 credentials file")
        return {}
    return parser[profile]
