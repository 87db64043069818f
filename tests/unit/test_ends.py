"""Where an answer ends, and which tokens of a fine-tune are part of it."""

import json
from functools import cache

import pytest

from pipeline.engine.cache import KVCache
from pipeline.engine.generation import Generation
from pipeline.engine.question import Question
from pipeline.engine.writing import Writing
from pipeline.errors import CheckpointError
from pipeline.families.qwen2_vl.generation_config import load_generation
from pipeline.model.tokenizer import Tokenizer
from tests.qwen_tokenizer import qwen, qwen_json, qwen_library
from tests.tiny_model import Tiny, hub_config, tiny_model
from tests.tiny_tokenizer import tiny_tokenizer

QWEN = qwen()


def begin(tokenizer: Tokenizer, eos_ids: list[int]) -> Generation:
    """An answer of which no step has been run; nothing here asks for memory."""
    writing = Writing(tiny_model(Tiny()).language, tokenizer, eos_ids=eos_ids)
    asked = Question(ids=(1,))
    return Generation(writing, asked, prompt_ids=[], position=0, num_reserved=1, new_cache=KVCache)


@pytest.mark.parametrize("eos_ids", [[], [0], [1, 2]], ids=str)
def test_the_end_of_a_turn_ends_an_answer_whatever_the_files_say(eos_ids):
    tokenizer = tiny_tokenizer()
    answer = begin(tokenizer, eos_ids)
    assert answer.accept(65)
    assert answer.completion is None
    assert answer.accept(tokenizer.ids.im_end) == ""
    assert answer.completion is not None
    assert answer.completion.finish_reason == "stop"


def test_a_folder_that_names_no_end_is_taken(tmp_path):
    config = hub_config(Tiny()) | {"eos_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_generation(tmp_path).eos_ids == ()


@cache
def unmerged_json() -> str:
    """The published tokenizer with its added tokens, but with letters alone: soon loaded."""
    content = json.loads(qwen_json())
    vocabulary = content["model"]["vocab"]
    content["model"] |= {
        "merges": [],
        "vocab": {word: number for word, number in vocabulary.items() if len(word) == 1},
    }
    return json.dumps(content)


def extended(*tokens: str, special: bool) -> Tokenizer:
    """The published tokenizer with tokens that a fine-tune added."""
    content = json.loads(unmerged_json())
    first = max(token["id"] for token in content["added_tokens"]) + 1
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] += [
        {"id": first + index, "content": token, "special": special, **flags}
        for index, token in enumerate(tokens)
    ]
    return Tokenizer(json.dumps(content))


ADDED = ("<think>", "</think>", "<défaut 3>", "[GOAL]")


def test_added_tokens_that_are_not_special_appear_in_answers():
    tokenizer = extended(*ADDED[2:], special=False)
    ids = [tokenizer.control_id(token) for token in ADDED]
    text = "".join(ADDED)
    assert tokenizer.decode(ids) == text
    answer = begin(tokenizer, [])
    assert "".join(map(answer.accept, ids)) == text


def test_added_tokens_that_are_special_do_not():
    tokenizer = extended("<hidden>", special=True)
    assert tokenizer.decode([tokenizer.control_id("<hidden>")]) == ""


def test_layout_tokens_stay_hidden_even_where_the_file_forgot_to_call_them_special():
    content = json.loads(unmerged_json())
    for token in content["added_tokens"]:
        token["special"] = False
    tokenizer = Tokenizer(json.dumps(content))
    assert tokenizer.decode([tokenizer.ids.im_start, tokenizer.ids.video_pad]) == ""


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("token", ADDED[2:])
def test_users_can_write_none_of_them(token, special):
    tokenizer = extended(token, special=special)
    added = tokenizer.control_id(token)
    for text in (token, f"say {token} please", token * 3, f" {token}\n"):
        ids = tokenizer.encode_text(text)
        assert added not in ids
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("token", ["<think>", "</think>", "<tool_call>"])
def test_users_can_write_none_of_the_published_ones(token):
    added = qwen_library().token_to_id(token)
    assert added not in QWEN.encode_text(f"{token}now{token}")
    assert QWEN.decode([added]) == token


def test_an_added_token_that_is_an_ordinary_word_too_is_refused():
    """`add_tokens` of a word that the vocabulary has makes it an added token under its old id."""
    content = json.loads(unmerged_json())
    word = next(iter(content["model"]["vocab"]))
    entry = content["added_tokens"][0] | {
        "id": content["model"]["vocab"][word],
        "content": word,
        "special": False,
    }
    content["added_tokens"].append(entry)
    with pytest.raises(CheckpointError, match="can't be kept apart"):
        Tokenizer(json.dumps(content))
