"""A tokenizer for the tiny checkpoints: a token per byte, control tokens where `Tiny` has them."""

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Library

from pipeline.model.tokenizer import CONTROL_TOKENS, Tokenizer
from tests.tiny_model import Tiny


def tiny_tokenizer(shape: Tiny | None = None) -> Tokenizer:
    """Ids 0-255 are bytes; above `random_ids` stand the control tokens, those of media last."""
    config = (shape or Tiny()).config
    media = {
        "<|vision_start|>": config.vision_start_id,
        "<|vision_end|>": config.vision_end_id,
        "<|image_pad|>": config.image_pad_id,
        "<|video_pad|>": config.video_pad_id,
    }
    # <|endoftext|> is bos of the tiny config.json and <|im_end|> eos, as on the hub
    ends = {"<|endoftext|>": config.vocab_size - 7, "<|im_end|>": config.vocab_size - 6}
    others = [token for token in CONTROL_TOKENS if token not in media | ends]
    first = config.vocab_size - 7 - len(others)
    control = media | ends | {token: first + index for index, token in enumerate(others)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = control | {letter: index for index, letter in enumerate(alphabet)}
    unused = set(range(config.vocab_size)).difference(vocab.values())
    vocab |= {f"{alphabet[0]}{index}": index for index in unused}  # never merged, so never encoded
    library = Library(models.BPE(vocab=vocab, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(token, special=True) for token in control])
    tokenizer = Tokenizer(library.to_str())
    tokenizer.require_fit(config)
    return tokenizer
