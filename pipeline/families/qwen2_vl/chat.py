"""Qwen2-VL's chat layout as token ids. The only place that knows it.

    <|im_start|>system                    \\
    You are a helpful assistant.<|im_end|> | before_media()[0]
    <|im_start|>user                       |
    <|vision_start|>                      /
      ... the video's tokens ...
    <|vision_end|>What happens?<|im_end|> \\ question()
    <|im_start|>assistant                 /

The checkpoint's template is never executed: control tokens are put in as ids, and all text goes
through `Tokenizer.encode_text`, which has none. What stands before and between media does not
depend on the question, so it is prefilled with them once, before anything is asked.
"""

from collections.abc import Sequence
from enum import StrEnum

from pipeline.model.tokenizer import Tokenizer

DEFAULT_SYSTEM = "You are a helpful assistant."

Run = tuple[int, ...]


class Medium(StrEnum):
    """What the user shows; the value is the word the template numbers them by."""

    IMAGE = "Picture"
    VIDEO = "Video"


class ChatLayout:
    """The token ids around media and text, for one tokenizer.

    system: the operator's words. numbered: write "Picture 1: ", "Video 1: " before each medium, as
    the template does with `add_vision_id`, so that a question can name one of several.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, system: str = DEFAULT_SYSTEM, numbered: bool = False
    ) -> None:
        self._encode = tokenizer.encode_text
        self._ids = tokenizer.ids
        self._numbered = numbered
        self._end_turn = [self._ids.im_end, *self._encode("\n")]
        self._system = [self._ids.im_start, *self._encode(f"system\n{system}"), *self._end_turn]
        self._assistant = [self._ids.im_start, *self._encode("assistant\n")]

    def before_media(self, media: Sequence[Medium]) -> tuple[Run, ...]:
        """What stands before each medium, in order; every run ends with <|vision_start|>."""
        runs = []
        for index, medium in enumerate(media):
            number = media[: index + 1].count(medium)
            label = f"{medium} {number}: " if self._numbered else ""
            if index == 0:
                before = [*self._system, *self._user(label)]
            else:
                before = [self._ids.vision_end, *self._encode(label)]
            runs.append((*before, self._ids.vision_start))
        return tuple(runs)

    def question(self, text: str) -> Run:
        """What follows the last medium; the model's answer comes next."""
        return (self._ids.vision_end, *self._encode(text), *self._end_turn, *self._assistant)

    def text_only(self, text: str) -> Run:
        """A whole prompt without media."""
        return (*self._system, *self._user(text), *self._end_turn, *self._assistant)

    def follow_up(self, text: str) -> Run:
        """The next question, right after the last token of an answer (its end token left out)."""
        return (*self._end_turn, *self._user(text), *self._end_turn, *self._assistant)

    def conversation(self, turns: Sequence[tuple[str, str]]) -> Run:
        """What follows the last medium when so much was said: questions, and answers to them."""
        ids: Run = ()
        for question, answer in turns:
            asked = self.follow_up(question) if ids else self.question(question)
            ids += (*asked, *self._encode(answer))
        return ids

    def _user(self, text: str) -> Run:
        # One text run, as the template leaves it: a question may begin with a newline of its own.
        return (self._ids.im_start, *self._encode(f"user\n{text}"))
