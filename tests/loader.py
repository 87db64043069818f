"""An actor that takes as long to start as a test wants."""

import os
import time
from pathlib import Path

import ray


@ray.remote(max_restarts=-1, num_cpus=0)
class Loader:
    """Up once its file is there."""

    def __init__(self, file: str) -> None:
        while not Path(file).exists():
            time.sleep(0.05)

    def process_id(self) -> int:
        return os.getpid()
