"""Where a reader who understands would look while he reads a question and says its answer.

Taught to a few attention heads (supervised attention, Liu et al. 2016, arXiv 1609.04186): told only
by its answers, a model this small takes hours to find out that "red star" in a question means the
tokens that say red and star.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jobs.lab.train.targets import COLOUR_INDEX, KIND_INDEX, TokenTargets
from pipeline.model.tokenizer import Tokenizer

ANY = -1


@dataclass(frozen=True, slots=True)
class Look:
    """At this place of a segment, the tokens of shapes of this colour and kind are meant."""

    place: int
    colour: int  # index, or ANY
    kind: int


class Gaze:
    """Finds the shapes that are meant by the words that name them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._colours = _word_ids(tokenizer, COLOUR_INDEX)
        self._kinds = _word_ids(tokenizer, KIND_INDEX)
        [self._stop] = tokenizer.encode_text(".")

    def while_asked(self, question: Sequence[int], num_answer: int) -> list[Look]:
        """What the question names, looked at from its last name on until the answer is said."""
        colour, kind = self._named(question)
        if colour == kind == ANY:
            return []
        names = [i for i, token in enumerate(question) if self._is_name(token)]
        end = len(question)
        places = [names[-1], *range(end - 1, end - 1 + num_answer)]
        return [Look(place, colour, kind) for place in places]

    def while_answered(self, question: Sequence[int], answer: Sequence[int]) -> list[Look]:
        """What the answer's present sentence is about, looked at from just before it is said."""
        asked_colour, asked_kind = self._named(question)
        looks, start = [], 0
        while start < len(answer):
            stop = next(
                (i + 1 for i in range(start, len(answer)) if answer[i] == self._stop), len(answer)
            )
            colour, kind = self._named(answer[start:stop])
            if ANY in (colour, kind):  # "star": of the red one
                colour = asked_colour if colour == ANY else colour
                kind = asked_kind if kind == ANY else kind
            if not colour == kind == ANY:
                places = range(len(question) + start - 1, len(question) + stop - 1)
                looks += [Look(place, colour, kind) for place in places]
            start = stop
        return looks

    def _named(self, ids: Sequence[int]) -> tuple[int, int]:
        colours = [self._colours[token] for token in ids if token in self._colours]
        kinds = [self._kinds[token] for token in ids if token in self._kinds]
        return (colours or [ANY])[0], (kinds or [ANY])[0]

    def _is_name(self, token: int) -> bool:
        return token in self._colours or token in self._kinds


def meant(look: Look, targets: TokenTargets, clip: int) -> np.ndarray:
    """Which of the clip's tokens are meant: (M) bool; none if the shape is not there."""
    found = targets.is_shape[clip] > 0
    if look.colour != ANY:
        found = found & (targets.colour[clip] == look.colour)
    if look.kind != ANY:
        found = found & (targets.kind[clip] == look.kind)
    return np.asarray(found)


def _word_ids(tokenizer: Tokenizer, index: dict[str, int]) -> dict[int, int]:
    """Each word's ids, at a text's start and after a space, to its index."""
    return {
        token: i
        for word, i in index.items()
        for text in (word, f" {word}")
        for token in tokenizer.encode_text(text)
    }


@dataclass(frozen=True, slots=True)
class Gazes:
    """All looks of a batch: (N) rows and places in the packing, and (N, M) the tokens meant."""

    rows: Tensor
    places: Tensor
    found: Tensor

    def at_step(self, step: int, num_steps: int) -> "Gazes":
        """The same looks, at one temporal patch only."""
        per_step = self.found.shape[1] // num_steps
        is_there = torch.arange(self.found.shape[1]) // per_step == step % num_steps
        return Gazes(self.rows, self.places, self.found & is_there)
