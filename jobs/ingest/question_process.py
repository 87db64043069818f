"""Whether a model can be asked questions, found out in a process of its own.

A vocabulary takes hundreds of MB, which end with that process. It loads little else.
"""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from pipeline.config import EngineLimits
from pipeline.errors import BadInput, ConfigError, VidrayError
from pipeline.task_check import TaskCheck
from pipeline.tasks.tasks import Tasks


def require_doable_apart(folder: Path, limits: EngineLimits, tasks: Tasks) -> None:
    """ConfigError for what would fail on every video alike, and for a folder that is no model."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            apart.submit(_require_doable, folder, limits, tasks).result()
    except BrokenProcessPool as error:
        raise VidrayError("the process that checks the questions was killed") from error


def _require_doable(folder: Path, limits: EngineLimits, tasks: Tasks) -> None:
    try:
        TaskCheck(folder, limits).require(tasks)
    except BadInput as error:
        raise ConfigError(error.detail) from error
