"""Models that come with vidray, a folder each: found alike in a checkout and in a wheel."""

from importlib.resources import files
from pathlib import Path

DEMO_MODEL = Path(str(files(__name__))) / "vidray-demo"
