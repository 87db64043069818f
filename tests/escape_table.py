"""What a decoder that was taken over gets done in each place: `python -m tests.escape_table`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.video.confinement import MEASURES
from tests.escapes import ESCAPES
from tests.places import PLACES

# Of any user: what the reader itself keeps from its own kind.
READERS = ("read the reader's environment", "read the reader's memory", "trace", "seize")


def attempts(place: str, folder: Path, *names: str) -> dict[str, dict[str, str]]:
    """What tests.places prints of a place. Raises CalledProcessError where it cannot be entered."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.places", place, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def main() -> None:
    print("| place | held by | tried | succeeded |\n|---|---|---|---|")
    for place in PLACES:
        names = READERS if place.startswith("no seccomp") else tuple(ESCAPES)
        with tempfile.TemporaryDirectory() as folder:
            found = attempts(place, Path(folder) / "it", *names)
        held = [measure for measure in MEASURES if measure in found["measures"]]
        escaped = [name for name, how in found["outcomes"].items() if how == "escaped"]
        print(
            f"| {place} | {', '.join(held)} | {len(names)} | {', '.join(escaped) or 0} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
