"""Which model made a row; no weight is read for it, and torch is not loaded."""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import Numerics
from pipeline.families.qwen2_vl.config import load_config
from pipeline.model.declared import row_flags
from pipeline.model.digest import digest, display_name


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Who made a row. flags: of every row it makes."""

    name: str
    digest: str
    flags: tuple[str, ...] = ()
    numerics: Numerics = Numerics()

    @classmethod
    def of(cls, folder: Path, *, numerics: Numerics | None = None) -> "ModelIdentity":
        """Of the model in this folder; CheckpointError if it cannot be read."""
        numerics = replace(numerics or Numerics(), stored=load_config(folder).quantization)
        name = display_name(folder, int8=numerics.int8)
        return cls(name, digest(folder), row_flags(folder), numerics)
