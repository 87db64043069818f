"""Who may ask: bearer keys, of which only hashes are kept.

A line (or a part between commas of VIDRAY_KEYS) is `name:sha256`, the hash in hex, as
`printf %s "$KEY" | sha256sum` prints it. A name owns files and streams; it may have several keys.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError

VARIABLE = "VIDRAY_KEYS"
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-f]{64})")
MAX_KEY_CHARACTERS = 1_024


@dataclass(frozen=True, slots=True)
class Keys:
    """owners: by the hash of each key. Without any, nobody is asked for one."""

    owners: Mapping[bytes, str]

    @classmethod
    def load(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> "Keys":
        """Of the file and of the environment. ConfigError for a line that is none."""
        lines = environment.get(VARIABLE, "").split(",")
        if file is not None:
            try:
                lines += file.read_text("utf-8").splitlines()
            except OSError as error:
                raise ConfigError(f"--keys {file} cannot be read: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise ConfigError(f"--keys {file} is not UTF-8 text") from error
        return cls(dict(map(_parsed, filter(_says_something, lines))))

    def owner(self, authorization: str) -> str | None:
        """Whose key it is that this header brings; None for nobody's."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or len(key) > MAX_KEY_CHARACTERS:
            return None
        digest = hashlib.sha256(key.strip().encode()).digest()
        found = [name for known, name in self.owners.items() if hmac.compare_digest(known, digest)]
        return found[0] if found else None


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _parsed(line: str) -> tuple[bytes, str]:
    match = _LINE.fullmatch(line.strip())
    if match is None:  # the line itself may be a key that was put there by mistake
        raise ConfigError("a key is written as name:sha256, 64 hex digits; one line is not")
    return bytes.fromhex(match[2]), match[1]
