"""Text to ids and back, for byte-level BPE vocabularies such as Qwen2-VL's.

Covered: text of users can't become a control token, whatever it spells (CVE-2026-44222 is what
happens otherwise); it is refused before any work when it is too long or is no Unicode text; words
that stream out never hold half a character.
Not covered: a tokenizer.json made to harm. It is the operator's file, like the weights.
"""

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from pipeline.config import ModelConfig
from pipeline.errors import BadInput, CheckpointError, FailureCode
from pipeline.families.qwen2_vl.config import load_config
from pipeline.model.folder import read_text

TOKENIZER_FILE = "tokenizer.json"
SLOW_FILE = "vocab.json"  # with merges.txt and added_tokens.json
MAX_TEXT_BYTES = 1 << 16  # two to four bytes a token: more than any window has room for
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlIds:
    """The tokens that lay out a prompt; no text encodes to them."""

    im_start: int
    im_end: int
    vision_start: int
    vision_end: int
    image_pad: int
    video_pad: int


class Tokenizer:
    """A checkpoint's tokenizer.json."""

    def __init__(self, text: str) -> None:
        """text: of tokenizer.json; CheckpointError if it is not one we can trust."""
        try:
            self._inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # noqa: BLE001  # the library raises nothing narrower
            raise _refused(f"not a tokenizer: {str(error)[:200]}") from None
        self.json = text
        self._require_byte_level()
        self._inner.no_truncation()
        self._inner.no_padding()
        self._protect_control_tokens()
        self.ids = ControlIds(
            im_start=self.control_id("<|im_start|>"),
            im_end=self.control_id("<|im_end|>"),
            vision_start=self.control_id("<|vision_start|>"),
            vision_end=self.control_id("<|vision_end|>"),
            image_pad=self.control_id("<|image_pad|>"),
            video_pad=self.control_id("<|video_pad|>"),
        )

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """The tokenizer of a model folder, checked against the folder's config.json."""
        _require_fast(path)
        tokenizer = cls(read_text(path, TOKENIZER_FILE))
        tokenizer.require_fit(load_config(path))
        return tokenizer

    def require_fit(self, config: ModelConfig) -> None:
        """CheckpointError unless this is the tokenizer of a model with `config`."""
        largest = max(self._inner.get_vocab().values())
        if largest >= config.vocab_size:
            raise _refused(f"has id {largest}, but the model knows {config.vocab_size} tokens")
        pairs = {
            "<|vision_start|>": config.vision_start_id,
            "<|vision_end|>": config.vision_end_id,
            "<|image_pad|>": config.image_pad_id,
            "<|video_pad|>": config.video_pad_id,
        }
        for token, expected in pairs.items():
            if self.control_id(token) != expected:
                raise _refused(f"{token} is {self.control_id(token)}, config.json says {expected}")

    @property
    def num_tokens(self) -> int:
        """Ids that stand for something; a model's vocabulary is often padded beyond them."""
        return int(self._inner.get_vocab_size())

    def control_id(self, token: str) -> int:
        """The id of a control token such as `<|box_start|>`; CheckpointError if there is none."""
        control_id = self._inner.token_to_id(token)
        if control_id not in self._control:
            raise _refused(f"lacks the control token {token}")
        return control_id

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text: what spells a control token is encoded letter by letter.

        BadInput: BAD_PROMPT for NUL and lone surrogates, PROMPT_TOO_LONG past MAX_TEXT_BYTES, both
        before any tokenising.
        """
        require_text(text)
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        if not self._control.keys().isdisjoint(ids):
            raise BadInput(FailureCode.BAD_PROMPT, "the text encodes to a control token")
        return ids

    def decode(self, ids: Iterable[int], *, keep_control: bool = False) -> str:
        """The text of `ids`, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        detokenizer = Detokenizer(self, keep_control=keep_control)
        return "".join(map(detokenizer.push, ids)) + detokenizer.finish()

    def token_bytes(self, token_id: int, *, keep_control: bool) -> bytes:
        """The bytes one token stands for; none for ids beyond the vocabulary (padding rows)."""
        if token_id in self._control:
            is_shown = keep_control or token_id not in self._hidden
            return self._control[token_id].encode() if is_shown else b""
        token = self._inner.id_to_token(token_id)
        return bytes(_BYTE_OF[letter] for letter in token) if token else b""

    def _require_byte_level(self) -> None:
        """Only then do ids have bytes, and only with all bytes does every text have ids."""
        if not isinstance(self._inner.decoder, tokenizers.decoders.ByteLevel):
            raise _refused("not a byte-level tokenizer")
        tokens = self._inner.get_vocab(with_added_tokens=False).keys()
        if not _BYTE_OF.keys() <= tokens:
            missing = len(_BYTE_OF.keys() - tokens)
            raise _refused(f"{missing} of 256 bytes have no token; text would be lost")
        if not set[str]().union(*tokens) <= _BYTE_OF.keys():
            raise _refused("has tokens that are not written in the byte-level alphabet")

    def _protect_control_tokens(self) -> None:
        """Keep text out of every added token, also those the file does not call special."""
        added = self._inner.get_added_tokens_decoder()
        self._control = {token_id: token.content for token_id, token in added.items()}
        # Added but not special, such as <think> or a label of a domain, is part of an answer.
        self._hidden = {
            token_id
            for token_id, token in added.items()
            if token.special or token.content in CONTROL_TOKENS
        }
        self._inner.add_special_tokens(
            [tokenizers.AddedToken(text, special=True) for text in self._control.values()]
        )
        self._inner.encode_special_tokens = True
        for token in CONTROL_TOKENS:
            self.control_id(token)
        for token in self._control.values():
            ids = self._inner.encode(token, add_special_tokens=False).ids
            if not self._control.keys().isdisjoint(ids):
                raise _refused(f"the text {token} can't be kept apart from the control token")


class Detokenizer:
    """Turns ids into text as they come; a character is held back until all its bytes are there."""

    def __init__(self, tokenizer: Tokenizer, *, keep_control: bool = False) -> None:
        self._tokenizer = tokenizer
        self._keep_control = keep_control
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters this token completes, possibly none."""
        return self._decoder.decode(
            self._tokenizer.token_bytes(token_id, keep_control=self._keep_control)
        )

    def finish(self) -> str:
        """U+FFFD if the ids ended inside a character."""
        return self._decoder.decode(b"", final=True)


def require_text(text: str) -> None:
    """BadInput unless `text` is Unicode without NUL and of at most MAX_TEXT_BYTES."""
    if len(text) > MAX_TEXT_BYTES:  # no character is less than a byte: nothing has to be encoded
        raise _too_long(len(text), "characters")
    if "\0" in text:
        raise BadInput(FailureCode.BAD_PROMPT, "the text has a NUL character")
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise BadInput(FailureCode.BAD_PROMPT, "the text has a lone surrogate") from None
    if size_bytes > MAX_TEXT_BYTES:
        raise _too_long(size_bytes, "bytes")


def _too_long(size: int, unit: str) -> BadInput:
    limit = f"limit {MAX_TEXT_BYTES} bytes"
    return BadInput(FailureCode.PROMPT_TOO_LONG, f"the text has {size} {unit}; {limit}")


def _require_fast(path: Path) -> None:
    if not (path / TOKENIZER_FILE).exists() and (path / SLOW_FILE).exists():
        raise _refused(
            f"missing; {SLOW_FILE} alone is of a slow tokenizer: write the folder's own by "
            "transformers (AutoTokenizer.from_pretrained, then save_pretrained), or copy the "
            "base model's where no token was added"
        )


def _refused(reason: str) -> CheckpointError:
    return CheckpointError(TOKENIZER_FILE, reason)


def _byte_level_alphabet() -> dict[str, int]:
    """The byte each letter of a byte-level vocabulary stands for (GPT-2's table).

    Printable bytes are written as themselves, the others as letters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_level_alphabet()
