"""Profiles: one that comes with vidray is meant by its name, any other by its file."""

from importlib.resources import files
from pathlib import Path

from actors.profile import Profile
from pipeline.errors import ConfigError


def bundled() -> dict[str, Path]:
    """The files that come with vidray by name, found alike in a checkout and in a wheel."""
    folder = Path(str(files(__name__)))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_profile(name_or_file: Path) -> Profile:
    """ConfigError names the file, the field and the rule it breaks, or the names there are."""
    ours = bundled()
    file = ours.get(str(name_or_file), name_or_file)
    if not file.exists():
        raise ConfigError(f"{file}: no such profile; there are {', '.join(ours)}, or give a file")
    return Profile.load(file)
