"""What a checkpoint says of itself to vidray: the section "vidray" of its config.json.

It travels with every copy of the folder, whatever that is called.
"""

from pathlib import Path

from pydantic import Field

from pipeline.model.folder import HubFields, parse_fields, read_json

CONFIG_FILE = "config.json"
DEMO_FLAG = "demo_model"


class _Declared(HubFields):
    """demo_model: it knows drawn shapes only; on any other footage its words mean nothing."""

    demo_model: bool = False


class _Config(HubFields):
    vidray: _Declared = Field(default=_Declared())


def row_flags(folder: Path) -> tuple[str, ...]:
    """Flags of every row that the model in this folder makes."""
    fields = parse_fields(_Config, CONFIG_FILE, read_json(folder, CONFIG_FILE))
    return (DEMO_FLAG,) if fields.vidray.demo_model else ()
