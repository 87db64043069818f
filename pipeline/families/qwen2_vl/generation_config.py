"""How a checkpoint wants to be sampled, and which tokens end an answer."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeInt

from pipeline.config import Sampling
from pipeline.errors import CheckpointError, ConfigError
from pipeline.families.qwen2_vl.config import CONFIG_FILE, language_fields, load_config
from pipeline.model.folder import (
    HubFields,
    parse_fields,
    read_json,
    read_optional_json,
    without_nulls,
)

GENERATION_FILE = "generation_config.json"


class _Ends(HubFields):
    eos_token_id: NonNegativeInt | list[NonNegativeInt] | None = None

    @property
    def eos_ids(self) -> tuple[int, ...]:
        ids = self.eos_token_id
        return () if ids is None else tuple(ids) if isinstance(ids, list) else (ids,)


class _GenerationFields(_Ends):
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDefaults:
    """The checkpoint's defaults; any of eos_ids ends an answer, as <|im_end|> always does."""

    sampling: Sampling
    eos_ids: tuple[int, ...]


def load_generation(path: Path) -> GenerationDefaults:
    """The folder's defaults. Without generation_config.json: greedy, config.json's end token."""
    content = without_nulls(read_optional_json(path, GENERATION_FILE))
    fields = parse_fields(_GenerationFields, GENERATION_FILE, content)
    eos_ids = fields.eos_ids or _config_ends(path).eos_ids
    _require_known(eos_ids, load_config(path).vocab_size)
    return GenerationDefaults(sampling=_sampling(fields), eos_ids=eos_ids)


def _require_known(ids: tuple[int, ...], vocab_size: int) -> None:
    if max(ids, default=0) >= vocab_size:
        reason = f"eos_token_id {max(ids)}, but the model knows {vocab_size} tokens"
        raise CheckpointError(GENERATION_FILE, reason)


def _config_ends(path: Path) -> _Ends:
    """Of the language model; transformers 4.52 to 4.57 may have only moved some of its fields."""
    content = read_json(path, CONFIG_FILE)
    both = content | without_nulls(language_fields(content))
    return parse_fields(_Ends, CONFIG_FILE, both)


def _sampling(fields: _GenerationFields) -> Sampling:
    given = fields.model_dump(exclude={"do_sample", "eos_token_id"})
    defaults = {"temperature": 1.0, "top_k": 50} if fields.do_sample else {}  # as in transformers
    settings = defaults | {name: value for name, value in given.items() if value is not None}
    if not fields.do_sample:
        settings["temperature"] = 0.0
    try:
        return Sampling(**settings)
    except ConfigError as error:
        raise CheckpointError(GENERATION_FILE, str(error)) from None
