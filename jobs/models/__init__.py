"""Models that come with vidray, a folder each: found alike in a checkout and in a wheel."""

import logging
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from pipeline.errors import ConfigError

DEMO_MODEL = Path(str(files(__name__))) / "vidray-demo"
DEMO_NOTICE = "vidray-demo knows coloured shapes; pass --model for Qwen2-VL"


def find_model(named: Path) -> Path:
    """A model's folder: one that comes with vidray by its name, unless there is such a folder."""
    if named.exists():
        return named
    if named == Path(DEMO_MODEL.name):
        return DEMO_MODEL
    if get_close_matches(str(named), [DEMO_MODEL.name]):
        raise ConfigError(f"{named}: no such model folder; did you mean {DEMO_MODEL.name}?")
    return named


def model_folder(named: Path | None) -> Path:
    """Of the model: the folder that was named; vidray-demo by its name, or where nothing was."""
    return demo_model() if named is None else find_model(named)


def demo_model() -> Path:
    if not DEMO_MODEL.is_dir():
        raise ConfigError("--model is missing: a folder with a Qwen2-VL checkpoint")
    logging.getLogger("vidray").warning(DEMO_NOTICE)
    return DEMO_MODEL
