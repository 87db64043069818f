"""What a flow has to know of the checkpoint it serves; no weight is read for it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.config import EngineLimits, Numerics, Sampling
from pipeline.families.qwen2_vl.chat import ChatLayout
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.model.tokenizer import Tokenizer
from pipeline.model_identity import ModelIdentity
from pipeline.prompts import Prompts
from pipeline.video.family import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Who it is in every row, its words, its pictures.

    token_bytes: of one token on its way to the decoder.
    """

    identity: ModelIdentity
    prompts: Prompts
    sampling: Sampling
    eos_ids: tuple[int, ...]
    token_bytes: int
    family: Family

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        limits: EngineLimits | None = None,
        numerics: Numerics | None = None,
    ) -> "ServedModel":
        """Of the model in this folder; CheckpointError if it cannot be trusted."""
        generation, numerics = load_generation(folder), numerics or Numerics()
        dtype: torch.dtype = getattr(torch, numerics.dtype)
        return cls(
            identity=ModelIdentity.of(folder, numerics=numerics),
            prompts=Prompts(ChatLayout(Tokenizer.load(folder)), limits or EngineLimits()),
            sampling=generation.sampling,
            eos_ids=generation.eos_ids,
            token_bytes=load_config(folder).hidden_size * dtype.itemsize,
            family=load_family(folder),
        )
