"""A tick's batch is a process of its own: `vidray batch run`, or `submit`.

So a tick needs neither torch nor Ray, and keeps its claim whatever the batch is busy with. The
batch hears what the tick is told, once, and is killed with it.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from jobs.exits import SIGNALS, Exit
from pipeline.video.confinement import end_with_parent

STOPPED = (Exit.TERMINATED, Exit.INTERRUPTED)


def run_apart(command: Sequence[str]) -> Exit:
    """`vidray COMMAND ...`, to its end; SystemExit where a signal ended it."""
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    # In a group of its own: a terminal's Ctrl-C would be told twice, and the second one means now.
    process = subprocess.Popen([sys.executable, "-m", __name__, *command], process_group=0)

    def tell(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, tell) for number in heeded}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code in STOPPED:
        sys.exit(code)
    return Exit(code) if code in set(Exit) else Exit.FAILED


def main() -> None:
    """What is run apart."""
    end_with_parent()
    from jobs.cli import main  # noqa: PLC0415 - not for the tick

    main()


if __name__ == "__main__":
    main()
