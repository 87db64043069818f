"""A model to measure on: fast or slow does not depend on what the weights say."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from jobs.lab.bench.peers import make_torchvision_importable
from pipeline.model.tokenizer import CONTROL_TOKENS

VOCAB_SIZE = 32_000
FIRST_CONTROL_ID = VOCAB_SIZE - len(CONTROL_TOKENS)
ID = {token: FIRST_CONTROL_ID + index for index, token in enumerate(CONTROL_TOKENS)}


def random_checkpoint(folder: Path, *, num_layers: int = 12, depth: int = 8) -> Path:
    """Write a model of 149 M parameters, 100 M of them language; kept if it is there. Its tower has
    depth layers, its language model num_layers.
    """
    if not (folder / "tokenizer.json").exists():
        _write_model(folder, num_layers=num_layers, depth=depth)
        _write_tokenizer(folder / "tokenizer.json")
    return folder


def _write_model(folder: Path, *, num_layers: int, depth: int) -> None:
    make_torchvision_importable()
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    config = Qwen2VLConfig.from_dict(dict(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=num_layers,
        num_attention_heads=12, num_key_value_heads=4, vocab_size=VOCAB_SIZE,
        rms_norm_eps=1e-6, rope_theta=1e6,
        tie_word_embeddings=True, rope_scaling={"type": "mrope", "mrope_section": [8, 12, 12]},
        bos_token_id=ID["<|endoftext|>"], eos_token_id=ID["<|im_end|>"],
        vision_start_token_id=ID["<|vision_start|>"], vision_end_token_id=ID["<|vision_end|>"],
        image_token_id=ID["<|image_pad|>"], video_token_id=ID["<|video_pad|>"],
        vision_config={
            "depth": depth, "embed_dim": 640, "mlp_ratio": 4, "num_heads": 8, "hidden_size": 768,
        },
    ))  # fmt: skip
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)


def _write_tokenizer(path: Path) -> None:
    """A token per byte, fillers that nothing encodes to, and the control tokens at the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(alphabet)} | ID
    vocab |= {f"{alphabet[0]}{index}": index for index in range(len(alphabet), FIRST_CONTROL_ID)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CONTROL_TOKENS])
    tokenizer.save(str(path))
