"""What the int8 mode of quantize.py costs one checkpoint, on a text that all are asked to read."""

from pathlib import Path

from pipeline.families.qwen2_vl.chat import ChatLayout
from pipeline.model.quantize import LogitError, quantize_and_measure
from pipeline.model.tokenizer import Tokenizer
from pipeline.model.weights import load_model

QUESTION = (
    "Describe in detail what happens in the video: who is there, what they do and in which order, "
    "what is written on signs, and how many of each thing there are. Answer in one paragraph."
)
ANSWER = (
    "The video begins with a wide shot of a busy street in the morning. A woman in a red coat "
    'walks a small brown dog along the pavement, past a bakery whose sign says "Fresh bread '
    'since 1924". Two cyclists wait at a traffic light while a yellow bus turns left in front '
    "of them; its number is 47. When the light turns green, the first cyclist rides off, the "
    "second one stops to pick up a glove, and the dog barks at him. In the last scene, about "
    "20 seconds later, the woman sits at a table outside a cafe with a cup of coffee, and the "
    "dog sleeps under her chair."
)


def int8_error(path: Path) -> LogitError:
    """Load the language model of a sound folder, round it, and compare its scores at each token."""
    tokenizer = Tokenizer.load(path)
    ids = [*ChatLayout(tokenizer).text_only(QUESTION), *tokenizer.encode_text(ANSWER)]
    return quantize_and_measure(load_model(path, halves=("language",)).language, ids)
