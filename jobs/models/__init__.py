"""Models that come with vidray, a folder each: found alike in a checkout and in a wheel."""

from importlib.resources import files
from pathlib import Path

DEMO_MODEL = Path(str(files(__name__))) / "vidray-demo"


def find_model(named: Path) -> Path:
    """A model's folder: one that comes with vidray by its name, unless there is such a folder."""
    is_ours = named == Path(DEMO_MODEL.name) and not named.exists()
    return DEMO_MODEL if is_ours else named
