"""Files of a listing that a job does not take, counted by kind: what is missing from its rows."""

from collections import Counter
from collections.abc import Mapping

MAX_TYPES = 100
MAX_SHOWN = 8
MAX_LENGTH = 10  # of a suffix; what is longer is part of a name
UNNAMED, OTHERS = "no suffix", "other"


class PassedOver(Counter[str]):
    """How many files of each kind: by the end of their names, or by why; small in any case."""

    def add(self, kind: str) -> None:
        self[kind if kind in self or len(self) < MAX_TYPES else OTHERS] += 1


def type_of(key: str) -> str:
    """A file's suffix in lower case."""
    stem, dot, suffix = key.rpartition("/")[2].rpartition(".")
    if not stem or not suffix.isalnum() or not suffix.isascii() or len(suffix) > MAX_LENGTH:
        return UNNAMED
    return f"{dot}{suffix.lower()}"


def describe_passed_over(counts: Mapping[str, int]) -> str:
    """As in "4 files passed over: .txt 3, .rm 1"; nothing if there are none."""
    most = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    if not most:
        return ""
    kinds = [f"{kind} {count:,}" for kind, count in most[:MAX_SHOWN]]
    if len(most) > MAX_SHOWN:
        kinds.append(f"and {len(most) - MAX_SHOWN} more types")
    total = sum(counts.values())
    return f"{total:,} file{'s' * (total != 1)} passed over: {', '.join(kinds)}"
