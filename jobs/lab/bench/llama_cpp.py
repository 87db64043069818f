"""llama.cpp as a peer of generation: the same weights, in q8_0, written by its own library."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.model.language import DecoderLayer, LanguageModel

Array = np.ndarray[Any, np.dtype[np.float32]]


def has_llama_cpp() -> bool:
    """Its wheels are for x86-64 only."""
    return find_spec("xllamacpp") is not None and find_spec("gguf") is not None


def write_q8_0(language: LanguageModel, path: Path) -> None:
    """Write a loaded model, neither packed nor quantised, as llama.cpp reads it.

    Text stands on one axis, as Qwen2's does, so of M-RoPE nothing is needed.
    """
    import gguf

    config = language.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("gpt2")  # no words are asked for, but it wants some
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"word{number}" for number in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    writer.add_token_merges(["w o"])
    for name, weight in _tensors(language):
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(language: LanguageModel) -> Iterator[tuple[str, Array]]:
    """Weights by llama.cpp's names."""
    config = language.config
    kv_width = config.num_kv_heads * config.head_dim
    heads = [config.num_heads * config.head_dim, kv_width, kv_width]
    with torch.inference_mode():
        yield "token_embd.weight", language.embed_tokens.weight.numpy()
        if language.lm_head is not None:
            yield "output.weight", language.lm_head.weight.numpy()
        yield "output_norm.weight", language.norm.weight.numpy()
        for index, layer in enumerate(language.layers):
            if not isinstance(layer, DecoderLayer):
                raise TypeError(f"layer {index} is {type(layer).__name__}")
            block, attention, mlp = f"blk.{index}", layer.self_attn, layer.mlp
            weight, bias = attention.qkv.folded()
            if bias is None:
                raise TypeError(f"layer {index} has no bias")
            for name, rows, offset in zip(
                "qkv", weight.split(heads), bias.split(heads), strict=True
            ):
                yield f"{block}.attn_{name}.weight", rows.numpy()
                yield f"{block}.attn_{name}.bias", offset.numpy()
            gate, up = mlp.gate_up.weight.chunk(2)
            for name, parameter in (
                ("attn_norm", layer.input_layernorm.weight),
                ("ffn_norm", layer.post_attention_layernorm.weight),
                ("attn_output", attention.o_proj.weight),
                ("ffn_gate", gate),
                ("ffn_up", up),
                ("ffn_down", mlp.down_proj.weight),
            ):
                yield f"{block}.{name}.weight", parameter.numpy()


class LlamaCpp:
    """One model, one sequence, as many threads as torch has here."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx = 1024
        options.n_parallel = 1
        options.verbosity = -1
        for threads in (options.cpuparams, options.cpuparams_batch):
            threads.n_threads = torch.get_num_threads()
        self._server = xllamacpp.Server(options)

    def word_seconds(self, ids: tuple[int, ...], num_words: int) -> float:
        """Seconds that a word after the prompt takes, by its own clock."""
        answer = self._server.handle_completions(
            {
                "prompt": list(ids),
                "n_predict": num_words,
                "ignore_eos": True,
                "temperature": 0,
                "cache_prompt": False,
            }
        )
        timings = answer["timings"]
        if timings["predicted_n"] != num_words:
            raise RuntimeError(f"wrote {timings['predicted_n']} words instead of {num_words}")
        return float(timings["predicted_per_token_ms"]) / 1e3
