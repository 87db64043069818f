"""vLLM itself: how it is started, and its words for what decoder.py wants of it."""

import gc
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from math import isfinite
from pathlib import Path
from typing import Any

import psutil
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.engine.protocol import StreamingInput
from vllm.inputs.engine import mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from actors.vllm.backend import Chosen, EngineLost
from actors.vllm.feed import Placed, Prompt
from actors.vllm.leftovers import remove, shared_files
from actors.vllm.plugin import ARCHITECTURE, ENDS_WITH_PARENT
from pipeline.config import Sampling
from pipeline.engine.constraint import Choices, Constraint
from pipeline.engine.question import Question

MODALITY, TOKENS = "video", "video_embeds"  # as sliced_model.py has them
MAX_REQUESTS = 256  # that vLLM has seats for, sessions that wait for their next update included

# A session's step samples a token, which nobody reads and the next update replaces.
_PREFILL = SamplingParams(
    temperature=0.0,
    max_tokens=1,
    ignore_eos=True,
    detokenize=False,
    output_kind=RequestOutputKind.DELTA,
)


class VLLMEngine:
    """A Backend. Its process ends with this one."""

    def __init__(self, llm: AsyncLLM) -> None:
        config = llm.vllm_config
        self._llm = llm
        self.block_tokens: int = config.cache_config.block_size
        self.num_blocks: int = config.cache_config.num_gpu_blocks - 1  # vLLM keeps one for itself
        self.max_prompt_tokens: int = config.model_config.max_model_len
        self.max_sessions = MAX_REQUESTS // 2
        self.num_prompt_tokens = 0  # of all questions, what came before them included
        self.num_cached_tokens = 0  # of those, what vLLM had computed already

    @classmethod
    def start(cls, folder: Path, **options: Any) -> "VLLMEngine":
        """Load the language model in this folder. options: of AsyncEngineArgs, beside ours."""
        os.environ[ENDS_WITH_PARENT] = str(os.getpid())
        arguments = {
            "model": str(folder),
            "hf_overrides": {"architectures": [ARCHITECTURE]},
            "generation_config": "vllm",  # what a question says is all that counts
            "enable_mm_embeds": True,
            "limit_mm_per_prompt": {"image": 0, "video": 0},  # of pixels: no tower is loaded
            "mm_processor_cache_gb": 0,  # slices that vLLM has go by their names alone
            "enable_prefix_caching": True,
            "max_num_seqs": MAX_REQUESTS,
            "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
            "disable_log_stats": True,
            "seed": 0,
        }
        return cls(AsyncLLM.from_engine_args(AsyncEngineArgs(**(arguments | options))))

    @property
    def is_dead(self) -> bool:
        return bool(self._llm.errored)

    def process_ids(self) -> list[int]:
        """Of vLLM's own process, then of those it started: its ranks."""
        first = self._llm.engine_core.resources.engine_manager.processes[0].pid
        return [first, *(child.pid for child in psutil.Process(first).children(recursive=True))]

    def stop(self) -> None:
        """End its processes; nothing can be asked of it any more."""
        self._llm.shutdown()
        del self._llm
        gc.collect()  # its __del__ fails when that runs as late as at the interpreter's end

    def drop_names(self) -> None:
        """Of the shared memory that all its processes have: for who may be killed, not stopped."""
        for process_id in self.process_ids():
            remove(shared_files(process_id))

    async def forget(self) -> None:
        """Drop what no request holds: the same video is computed again, as a measurement wants."""
        await self._llm.reset_prefix_cache()

    async def prefill(self, name: str, updates: AsyncGenerator[Prompt, None]) -> AsyncIterator[int]:
        async def inputs() -> AsyncGenerator[StreamingInput, None]:
            async for update in updates:
                yield StreamingInput(prompt=_input(update), sampling_params=_PREFILL)

        try:
            async for output in self._llm.generate(inputs(), _PREFILL, request_id=name):
                yield len(output.outputs[0].token_ids)
        except EngineDeadError as error:
            raise EngineLost(f"the engine's process is gone: {error}") from error

    async def answer(
        self, name: str, prompt: Prompt, question: Question, eos_ids: Collection[int]
    ) -> AsyncGenerator[Chosen, None]:
        parameters = sampling_parameters(question, eos_ids)
        try:
            is_first = True
            async for output in self._llm.generate(_input(prompt), parameters, request_id=name):
                if is_first:
                    self.num_prompt_tokens += len(prompt.ids)
                    self.num_cached_tokens += output.num_cached_tokens or 0
                    is_first = False
                said = output.outputs[0]
                logprobs = said.logprobs or ()
                is_finite = all(
                    isfinite(each.logprob) for place in logprobs for each in place.values()
                )
                yield Chosen(tuple(said.token_ids), is_finite)
        except EngineDeadError as error:
            raise EngineLost(f"the engine's process is gone: {error}") from error


def sampling_parameters(question: Question, eos_ids: Collection[int]) -> SamplingParams:
    """vLLM's for a question. Where an answer ends by its text is ours to say: see AnswerText."""
    sampling: Sampling = question.sampling
    chosen = (
        {"temperature": 0.0}
        if sampling.is_greedy
        else {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": sampling.seed,
        }
    )
    return SamplingParams(
        **chosen,
        repetition_penalty=sampling.repetition_penalty,
        max_tokens=sampling.max_new_tokens,
        ignore_eos=True,  # of the tokenizer's files; ours are these:
        stop_token_ids=sorted(eos_ids),
        detokenize=False,
        logprobs=0,  # of the token that was chosen, which is not finite if any score was NaN
        output_kind=RequestOutputKind.DELTA,
        structured_outputs=_structured(question.constraint),
    )


def _structured(constraint: Constraint | None) -> StructuredOutputsParams | None:
    if constraint is None:
        return None
    if isinstance(constraint, Choices):
        return StructuredOutputsParams(grammar=constraint.lark)
    return StructuredOutputsParams(json=constraint.text, disable_any_whitespace=True)


def _input(prompt: Prompt) -> Any:
    """A rendered input: the ids are ours, so no text of a user's makes a control token."""
    ids = list(prompt.ids)
    if not prompt.slices:
        return tokens_input(ids)
    return mm_input(
        prompt_token_ids=ids,
        mm_kwargs=MultiModalKwargsItems({MODALITY: [_item(each) for each in prompt.slices]}),
        mm_hashes={MODALITY: [each.slice.name for each in prompt.slices]},
        mm_placeholders={
            MODALITY: [
                PlaceholderRange(offset=each.offset - prompt.start, length=each.slice.num_tokens)
                for each in prompt.slices
            ]
        },
    )


def _item(placed: Placed) -> MultiModalKwargsItem | None:
    if placed.tokens is None:
        return None
    element = MultiModalFieldElem(data=placed.tokens, field=MultiModalBatchedField())
    return MultiModalKwargsItem({TOKENS: element})
