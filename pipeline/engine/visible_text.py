"""Text as it becomes certain, token by token: whole characters, and nothing of a stop text."""

from pipeline.model.tokenizer import Detokenizer


class VisibleText:
    """The text of one answer. What may turn out to be the start of a stop text is held back."""

    def __init__(self, detokenizer: Detokenizer, *, stops: tuple[str, ...]) -> None:
        self._detokenizer = detokenizer
        self._stops = stops
        self._text = ""
        self._num_shown = 0
        self.is_stopped = False  # a stop text came: `whole` ends before it

    @property
    def whole(self) -> str:
        """All of it so far."""
        return self._text

    def push(self, token: int) -> str:
        """Take the next token; returns the text it made certain."""
        self._text += self._detokenizer.push(token)
        self._cut_at_stop()
        return self._show(0 if self.is_stopped else self._num_held_back())

    def finish(self) -> str:
        """Nothing follows: returns the text that was held back."""
        if not self.is_stopped:
            self._text += self._detokenizer.finish()
            self._cut_at_stop()
        return self._show(0)

    def _show(self, num_held_back: int) -> str:
        stop = len(self._text) - num_held_back
        shown = self._text[self._num_shown : stop]
        self._num_shown = max(stop, self._num_shown)
        return shown

    def _cut_at_stop(self) -> None:
        """Cut the text before the first stop text in it, if any."""
        found = [self._text.find(stop, self._num_shown) for stop in self._stops]
        places = [place for place in found if place >= 0]
        if places:
            self._text = self._text[: min(places)]
            self.is_stopped = True

    def _num_held_back(self) -> int:
        """Length of the longest end of the text that is the start of a stop text."""
        tail = self._text[self._num_shown :]
        return max(
            (
                size
                for stop in self._stops
                for size in range(1, min(len(stop), len(tail) + 1))
                if tail.endswith(stop[:size])
            ),
            default=0,
        )
