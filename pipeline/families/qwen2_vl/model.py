"""Qwen2-VL: a vision tower and a language model, and their names in a checkpoint."""

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from pipeline.config import ModelConfig
from pipeline.families.qwen2_vl.vision import VisionTower
from pipeline.model.language import LanguageModel
from pipeline.model.parallel import TensorParallel, TensorPart, checkpoint_parts

# First match wins: our module path -> the hub's tensor name.
HUB_NAMES = (("language.lm_head.", "lm_head."), ("language.", "model."), ("vision.", "visual."))


class Qwen2VL(nn.Module):
    """One rank's share of a Qwen2-VL.

    Parameters are allocated, not initialised: load a checkpoint or initialise them. To build on
    another device, or on none: `with torch.device("meta"): Qwen2VL(config)`.
    shares_vision: False leaves the tower whole, as for ranks that never see: any number will do.
    """

    def __init__(
        self,
        config: ModelConfig,
        parallel: TensorParallel | None = None,
        *,
        shares_vision: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(config.vision, parallel if shares_vision else None)
        self.language = LanguageModel(config, parallel)

    def checkpoint_parts(self) -> Iterator[tuple[str, TensorPart]]:
        """(our parameter name, part with the hub's tensor name) of everything this rank holds."""
        for name, part in checkpoint_parts(self):
            ours, hub = next(pair for pair in HUB_NAMES if part.tensor.startswith(pair[0]))
            yield name, replace(part, tensor=hub + part.tensor.removeprefix(ours))
