"""Where the keys to S3 come from: found at the first request, named in messages, renewed in time.

Looked for in the order of AWS's own tools: variables, a web identity, a profile (its keys, or the
role it assumes), a container's role, an instance's; else there are none, as for public buckets.
Covered: keys that end within the run, where a role or the file has new ones; a source that is
    silent (Transient) or refuses (StoreDenied) then: another identity is never taken instead.
Not covered: SSO and credential_process; such a profile is refused by name.
"""

import configparser
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError  # noqa: S405 - only what minio raises is named

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AssumeRoleProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
    WebIdentityProvider,
)
from minio.error import MinioException

from pipeline.errors import ConfigError, StoreDenied, Transient

_PATIENCE = urllib3.Retry(
    total=3, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504), allowed_methods=None
)
_ELSEWHERE = ("sso_session", "sso_start_url", "credential_process")
NO_KEYS = (
    "no keys (there is no AWS_ACCESS_KEY_ID, no web identity, no profile with keys, "
    "and no container or instance with a role)"
)


class S3Keys(Provider):
    """The keys for every request; shared by the stores of one process, safe between threads."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {
            name: value
            for name, value in environment.items()
            if value and (name.startswith("AWS_") or name == "HOME")
        }
        self._lock = threading.Lock()
        self._found: _Source | None = None

    def __repr__(self) -> str:
        return f"S3Keys({self.source})"  # never the keys

    def __reduce__(self) -> tuple[Any, ...]:
        return S3Keys, (self._environment,)  # another process finds its own

    @property
    def source(self) -> str:
        """Where they come from, for people, as in "reached with ..."; asks nobody."""
        return self._found.name if self._found else "keys not found yet"

    def retrieve(self) -> Credentials | None:  # type: ignore[override] # minio asks `if creds`
        """Keys that hold now, None to ask without. ConfigError, StoreDenied, Transient."""
        with self._lock:
            if self._found is None:
                self._found = _find(self._environment)
            if self._found.provider is None:
                return None
            return _ask(self._found.name, self._found.provider)


@dataclass(frozen=True, slots=True)
class _Source:
    """name: for people. provider: renews what it gives by itself; None gives none."""

    name: str
    provider: Provider | None


def _find(environment: Mapping[str, str]) -> _Source:
    """The first source there is."""
    return (
        _variables(environment)
        or _web_identity(environment)
        or _profile(environment)
        or _container(environment)
        or _instance(environment)
        or _Source(NO_KEYS, None)
    )


def _ask(name: str, provider: Provider) -> Credentials:
    """Messages are ours: those of minio hold whole urls, and tokens are in them."""
    try:
        return provider.retrieve()
    except urllib3.exceptions.HTTPError as error:
        raise Transient(f"{name} could not be had ({type(error).__name__})") from error
    except (ValueError, KeyError, ParseError, MinioException, OSError) as error:
        status = re.search(r"status code (\d{3})", str(error))
        reason = f"answered {status[1]}" if status else type(error).__name__
        raise StoreDenied(f"{name} could not be had ({reason})") from error


def _variables(environment: Mapping[str, str]) -> _Source | None:
    key, secret = (
        environment.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    )
    if key is None and secret is None:
        return None
    if key is None or secret is None:
        raise ConfigError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY need each other")
    token = environment.get("AWS_SESSION_TOKEN")
    name = "the keys of AWS_ACCESS_KEY_ID" + (token and " and AWS_SESSION_TOKEN" or "")
    return _Source(name, StaticProvider(key, secret, token))


def _web_identity(environment: Mapping[str, str]) -> _Source | None:
    token_file = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if token_file is None:
        return None
    role = environment.get("AWS_ROLE_ARN")
    provider = WebIdentityProvider(
        jwt_provider_func=lambda: {"access_token": Path(token_file).read_text("utf-8").strip()},
        sts_endpoint=_token_service(environment, region_of(environment)),
        role_arn=role,
        role_session_name=environment.get("AWS_ROLE_SESSION_NAME", "vidray"),
        http_client=urllib3.PoolManager(timeout=10, retries=_PATIENCE),
    )
    return _Source(f"the keys of {role or 'the role'} by {token_file}", provider)


def _profile(environment: Mapping[str, str]) -> _Source | None:
    name = environment.get("AWS_PROFILE", "default")
    settings = _settings(environment, name)
    if "AWS_PROFILE" in environment and not settings:
        places = " nor ".join(map(str, _files(environment)))
        raise ConfigError(f"AWS_PROFILE {name!r} is neither in {places}")
    words = f"profile {name!r}"
    if "role_arn" in settings and "source_profile" in settings:
        return _assumed_role(environment, settings, words)
    if "aws_access_key_id" in settings:
        return _Source(f"the keys of {words}", _FileProvider(environment, name))
    if by := next((key for key in _ELSEWHERE if key in settings), None):
        raise ConfigError(
            f"{words} has its keys by {by}, which vidray does not ask: "
            f"`aws configure export-credentials --profile {name} --format env` gives variables"
        )
    return None


def _assumed_role(
    environment: Mapping[str, str], settings: Mapping[str, str], words: str
) -> _Source:
    role, source = settings["role_arn"], settings["source_profile"]
    keys = _FileProvider(environment, source).retrieve()
    region = region_of(environment)
    provider = AssumeRoleProvider(
        sts_endpoint=_token_service(environment, region),
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        region=region,
        role_arn=role,
        role_session_name=settings.get("role_session_name", "vidray"),
        external_id=settings.get("external_id"),
        http_client=urllib3.PoolManager(timeout=10, retries=_PATIENCE),
    )
    return _Source(f"the keys of {role} by {words}", provider)


def _container(environment: Mapping[str, str]) -> _Source | None:
    names = [f"AWS_CONTAINER_CREDENTIALS_{kind}_URI" for kind in ("RELATIVE", "FULL")]
    if not any(name in environment for name in names):
        return None
    relative, full = map(environment.get, names)
    provider = IamAwsProvider(
        relative_uri=relative,
        full_uri=full,
        http_client=urllib3.PoolManager(timeout=10, retries=_PATIENCE),
    )
    return _Source("the keys of the container's role", provider)


def _instance(environment: Mapping[str, str]) -> _Source | None:
    """Asked once, for a moment: elsewhere than in AWS nobody answers there."""
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    provider = IamAwsProvider(
        custom_endpoint=environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        http_client=urllib3.PoolManager(timeout=1, retries=urllib3.Retry(total=1)),
    )
    source = _Source("the keys of the instance's role", provider)
    try:
        _ask(source.name, provider)
    except (StoreDenied, Transient):
        return None
    return source


class _FileProvider(Provider):
    """Keys of a profile's section. minio's own takes "%" in a secret for something else.

    The files are read again once they are written again, as whoever renews a session does.
    """

    def __init__(self, environment: Mapping[str, str], profile: str) -> None:
        self._environment = environment
        self._profile = profile
        self._state: tuple[object, ...] | None = None
        self._keys: Credentials | None = None

    def retrieve(self) -> Credentials:
        state = tuple(map(_state_of, _files(self._environment)))
        if self._keys is None or state != self._state:
            settings = _settings(self._environment, self._profile)
            try:
                self._keys = Credentials(
                    settings["aws_access_key_id"],
                    settings["aws_secret_access_key"],
                    settings.get("aws_session_token"),
                )
            except (KeyError, ValueError):  # not there, or empty
                raise ConfigError(
                    f"profile {self._profile!r} needs aws_access_key_id and aws_secret_access_key"
                ) from None
            self._state = state
        return self._keys


def region_of(environment: Mapping[str, str]) -> str:
    """AWS_REGION, AWS_DEFAULT_REGION, the profile's, or us-east-1."""
    return (
        environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
        or _settings(environment, environment.get("AWS_PROFILE") or "default").get("region")
        or "us-east-1"
    )


def _token_service(environment: Mapping[str, str], region: str) -> str:
    suffix = ".cn" if region.startswith("cn-") else ""
    return environment.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.amazonaws.com{suffix}"


def _files(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """Where profiles stand: settings and keys."""
    folder = Path(environment.get("HOME", "/")) / ".aws"
    return (
        Path(environment.get("AWS_CONFIG_FILE") or folder / "config"),
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or folder / "credentials"),
    )


def _settings(environment: Mapping[str, str], profile: str) -> Mapping[str, str]:
    """All that both files say of a profile; what stands with the keys wins. Empty: nothing."""
    config, credentials = _files(environment)
    section = profile if profile == "default" else f"profile {profile}"
    named = environment.get("AWS_SHARED_CREDENTIALS_FILE")
    if named and not os.access(credentials, os.R_OK):
        raise ConfigError(f"AWS_SHARED_CREDENTIALS_FILE names no readable file: {named}")
    return {**_section(config, section), **_section(credentials, profile)}


def _section(file: Path, name: str) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not in INI format") from error
    return dict(parser[name]) if parser.has_section(name) else {}


def _state_of(file: Path) -> object:
    """Another one once the file was written again."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
