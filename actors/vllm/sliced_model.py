"""Qwen2-VL's language model for vLLM: it sees what our tower made, where our positions say.

Covered: whatever vLLM's Qwen2 can do (tensor parallel, quantised weights), at M-RoPE's positions.
Not covered: pixels, images, anything by another name than a slice's; all are refused. There is no
tower here: vLLM's own Qwen2-VL would need torchvision to be imported, and memory to be loaded.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMRoPE, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
)

from actors.vllm.feed import SLICE_TOKENS
from actors.vllm.slices import TokenSlice, prompt_positions

MODALITY, TOKENS = "video", "video_embeds"
REFUSED = "only slices of vidray's are taken"


class SliceInfo(BaseProcessingInfo):  # type: ignore[misc]
    """How large a slice is; no processor of Hugging Face's is asked, so none need be there."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {MODALITY: None}

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        return {MODALITY: SLICE_TOKENS}


class SliceProcessor(BaseMultiModalProcessor[SliceInfo]):  # type: ignore[misc]
    """Slices come processed; whatever else comes is refused."""

    def _get_mm_fields_config(self, *_: Any, **__: Any) -> Any:
        raise ValueError(REFUSED)

    def _get_prompt_updates(self, *_: Any, **__: Any) -> Any:
        raise ValueError(REFUSED)


class NoDummies(BaseDummyInputsBuilder[SliceInfo]):  # type: ignore[misc]
    """There is no tower to try out."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""

    def get_dummy_mm_data(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


@MULTIMODAL_REGISTRY.register_processor(SliceProcessor, info=SliceInfo, dummy_inputs=NoDummies)
class SlicedQwen2VL(nn.Module, SupportsMultiModal, SupportsPP, SupportsMRoPE):  # type: ignore[misc]
    """vLLM's Qwen2 behind the positions and the names of tensors of Qwen2-VL."""

    # The names of transformers 4.52 and later, then the hub's; of the tower nothing is loaded.
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.language_model.": "language_model.model.",
            "model.visual.": None,
            "visual.": None,
            "lm_head.": "language_model.lm_head.",
            "model.": "language_model.model.",
        }
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        with self._mark_language_model(vllm_config):  # type: ignore[operator]
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=["Qwen2ForCausalLM"],
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def get_mrope_input_positions(
        self, input_tokens: Sequence[int], mm_features: Sequence[Any]
    ) -> tuple[Tensor, int]:
        """(3, S), and by how much later tokens stand before their index."""
        slices = [
            (feature.mm_position.offset, TokenSlice.parse(feature.identifier))
            for feature in sorted(mm_features, key=lambda each: each.mm_position.offset)
        ]
        positions, following = prompt_positions(len(input_tokens), slices)
        return positions, following - len(input_tokens)

    def embed_multimodal(self, **inputs: Any) -> tuple[Tensor, ...]:
        """What our tower made of each slice, (M, D), as it is."""
        if set(inputs) != {TOKENS}:
            raise ValueError(f"{REFUSED}, got {sorted(inputs)}")
        weight = self.language_model.model.embed_tokens.weight
        return tuple(tokens.to(weight) for tokens in inputs[TOKENS])

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **_: object,
    ) -> Any:
        """Hidden states (S, D) of tokens by id or by vector; positions: (3, S)."""
        return self.language_model.model(
            input_ids=input_ids,
            positions=positions,
            intermediate_tensors=intermediate_tensors,
            inputs_embeds=None if intermediate_tensors is not None else inputs_embeds,
        )

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        logits: Tensor | None = self.language_model.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        loader = AutoWeightsLoader(self)
        loaded: set[str] = loader.load_weights(weights, mapper=self.hf_to_vllm_mapper)
        return loaded
