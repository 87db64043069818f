"""`vidray profile show`: every setting of a profile, as a file to start one's own from."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

import yaml
from pydantic import BaseModel

from actors.profile import Profile
from deploy.profiles import bundled, load_profile

WIDTH = 96


def show(name_or_file: Path | None) -> None:
    """Print one; without a name, what is used where no profile is given."""
    profile = load_profile(name_or_file) if name_or_file else _machine_profile()
    print(f"# With vidray come {', '.join(bundled())}; any other is a file like this one.\n")
    print(commented(profile), end="")


def _machine_profile() -> Profile:
    from jobs.workplace import machine_profile  # noqa: PLC0415 - torch takes seconds to import

    return machine_profile()


def commented(profile: Profile) -> str:
    """YAML that loads as the same profile; above every field stands its description."""
    text = "".join(f"{line}\n" for line in _lines(profile))
    return re.sub(r"\n{3,}", "\n\n", text)


def _lines(settings: BaseModel) -> Iterator[str]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from ("", f"# {(value.__doc__ or name).splitlines()[0]}", f"{name}:")
            yield from (f"  {line}" for line in _lines(value))
            yield ""
        else:
            yield from (f"# {line}" for line in wrap(field.description or "", WIDTH))
            yield yaml.safe_dump({name: value}).strip()
