"""What is wrong with tasks, told by a checkpoint's small files: no weight is read, no video opened.

Whatever would fail on every video alike is found here, so that an archive is not read for it.
"""

from functools import cached_property, lru_cache
from pathlib import Path

from pipeline.config import EngineLimits
from pipeline.engine.constraint import Constraint, ConstraintCompiler
from pipeline.errors import BadInput, FailureCode
from pipeline.families.qwen2_vl.boxes import grounding_question
from pipeline.families.qwen2_vl.chat import ChatLayout
from pipeline.families.qwen2_vl.config import load_config
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.model.tokenizer import Tokenizer
from pipeline.settings import shown
from pipeline.tasks.tasks import Tasks

REMEMBERED = 4096  # questions of a manifest, which mostly repeat


class TaskCheck:
    """Tasks of one checkpoint, within one engine's limits."""

    def __init__(self, folder: Path, limits: EngineLimits) -> None:
        """CheckpointError if the folder's config.json, tokenizer or defaults cannot be trusted."""
        tokenizer = Tokenizer.load(folder)
        self._eos_ids = sorted({*load_generation(folder).eos_ids, tokenizer.ids.im_end})
        self._tokenizer = tokenizer
        self._layout = ChatLayout(tokenizer)
        self._max_tokens = min(limits.question_tokens, load_config(folder).max_positions)
        self._num_ids = lru_cache(REMEMBERED)(self._count_ids)
        self._require_usable = lru_cache(REMEMBERED)(self._compile)

    def require(self, tasks: Tasks) -> None:
        """BadInput (BAD_PROMPT, PROMPT_TOO_LONG) for what no video could make right."""
        for constraint in {ask.constraint for ask in tasks.asks} - {None}:
            self._require_usable(constraint)
        caption = tasks.caption_prompt(is_still=False)
        prompts = {
            **({} if caption is None else {"the caption": caption}),
            **{shown(ask.question): ask.question for ask in tasks.asks},
            **{shown(ground.query): grounding_question(ground.query) for ground in tasks.grounds},
        }
        for name, prompt in prompts.items():
            needed = self._num_ids(prompt) + tasks.sampling.max_new_tokens
            if needed > self._max_tokens:
                detail = f"{name} and its answer need {needed} tokens"
                raise BadInput(FailureCode.PROMPT_TOO_LONG, f"{detail}; limit {self._max_tokens}")

    def _count_ids(self, prompt: str) -> int:
        return len(self._layout.question(prompt))

    @cached_property
    def _compiler(self) -> ConstraintCompiler:
        """70 MB with Qwen2-VL's vocabulary, of no use where nothing is constrained."""
        return ConstraintCompiler(self._tokenizer.json, eos_ids=self._eos_ids)

    def _compile(self, constraint: Constraint) -> None:
        self._compiler.start(constraint)
