"""The model that a plan is made for: a checkpoint's, or a published size without one."""

from dataclasses import dataclass
from pathlib import Path

from jobs.models import find_model
from pipeline.config import ModelConfig, Sampling
from pipeline.errors import ConfigError
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.families.qwen2_vl.published import SIZES
from pipeline.families.qwen2_vl.sampling import QWEN2_VL, load_family
from pipeline.model.check import num_parameters
from pipeline.video.family import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """folder: None of a published size. vision, language: parameters."""

    name: str
    folder: Path | None
    config: ModelConfig
    family: Family
    sampling: Sampling
    vision: int
    language: int

    @classmethod
    def of(cls, named: str | None) -> "PlannedModel":
        """ConfigError where nothing is named; CheckpointError for a folder that is none."""
        if named is None:
            raise ConfigError(
                f"--model is missing: {', '.join(SIZES).lower()}, a Qwen2-VL folder, or vidray-demo"
            )
        published = SIZES.get(named.upper())
        if published is not None and not Path(named).exists():
            return cls._made(f"Qwen2-VL-{named.upper()}", None, published, QWEN2_VL, Sampling())
        folder = find_model(Path(named))
        return cls._made(
            folder.name,
            folder,
            load_config(folder),
            load_family(folder),
            load_generation(folder).sampling,
        )

    @classmethod
    def _made(
        cls,
        name: str,
        folder: Path | None,
        config: ModelConfig,
        family: Family,
        sampling: Sampling,
    ) -> "PlannedModel":
        vision, language = num_parameters(config)
        return cls(
            name=name,
            folder=folder,
            config=config,
            family=family,
            sampling=sampling,
            vision=vision,
            language=language,
        )
