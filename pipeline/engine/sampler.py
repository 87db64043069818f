"""The next token of each request: greedy, or drawn with the request's own random numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.config import Sampling
from pipeline.engine.constraint import Matcher
from pipeline.errors import BadInput, FailureCode


class Sampler:
    """Chooses the tokens of one request; nothing else in its batch has a say.

    Order of the steps as in Hugging Face generate: repetition penalty, constraint, temperature,
    top-k, top-p. The penalty counts the prompt's tokens too.
    """

    def __init__(
        self, sampling: Sampling, *, prompt_ids: Sequence[int] = (), matcher: Matcher | None = None
    ) -> None:
        self._sampling = sampling
        self._matcher = matcher
        self._seen = set(prompt_ids) if sampling.repetition_penalty != 1.0 else None
        self._random = torch.Generator().manual_seed(sampling.seed)

    @property
    def takes_largest(self) -> bool:
        """Whether the largest of the raw logits is the choice, so nobody has to ask `choose`."""
        return self._sampling.is_greedy and self._seen is None and self._matcher is None

    @property
    def is_complete(self) -> bool:
        """Whether the constraint lets nothing follow the tokens taken so far."""
        return self._matcher is not None and self._matcher.is_complete

    def choose(self, logits: Tensor) -> int:
        """The next token by its finite logits (V), which are left as they are."""
        scores = logits.float()
        if self._seen:
            scores = _penalise(scores, sorted(self._seen), self._sampling.repetition_penalty)
        if self._matcher is not None:
            scores = self._matcher.restrict(scores)
        if self._sampling.is_greedy:
            return int(scores.argmax())
        return _draw(scores, self._sampling, self._random)

    def take(self, token: int) -> None:
        """Count `token` as written; call once for each token chosen."""
        if self._seen is not None:
            self._seen.add(token)
        if self._matcher is not None:
            self._matcher.take(token)


def next_tokens(logits: Tensor, samplers: Sequence[Sampler]) -> list[int | BadInput]:
    """One token per row of logits (R, V), or for a row that isn't finite why there is none.

    One argmax serves all plain greedy rows: no softmax over the vocabulary, one synchronisation.
    """
    # A sum is finite if and only if every term is: one pass, and NaN can't hide behind a maximum.
    is_finite = logits.sum(-1, dtype=torch.float32).isfinite()
    largest, finite = torch.stack((logits.argmax(-1), is_finite.long())).tolist()
    return [
        _choose(sampler, row, best) if ok else _not_finite()
        for sampler, row, best, ok in zip(samplers, logits, largest, finite, strict=True)
    ]


def _choose(sampler: Sampler, row: Tensor, largest: int) -> int | BadInput:
    try:
        token: int = largest if sampler.takes_largest else sampler.choose(row)
        sampler.take(token)
    except BadInput as error:  # a constraint that ran out of fuel ends its own request only
        return error
    return token


def _not_finite() -> BadInput:
    return BadInput(FailureCode.NONFINITE_LOGITS, "the model's scores contain NaN or infinity")


def _penalise(scores: Tensor, seen: list[int], penalty: float) -> Tensor:
    """Make every seen token less likely (arXiv 1909.05858), whatever the sign of its score."""
    index = torch.tensor(seen, device=scores.device)
    old = scores[index]
    return scores.index_copy(0, index, torch.where(old < 0, old * penalty, old / penalty))


def _draw(scores: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """One token at random from softmax(scores / temperature), cut to top-k, then to top-p.

    Sorted where the scores are and drawn on the CPU, so that a seed means the same on every device.
    """
    kept = min(sampling.top_k or scores.numel(), scores.numel())
    scores, tokens = scores.topk(kept)  # sorted, largest first
    # Minus the largest first: a small temperature must not overflow.
    probabilities = ((scores - scores[0]) / sampling.temperature).softmax(0)
    before = probabilities.cumsum(0) - probabilities
    nucleus = probabilities * (before < sampling.top_p)  # never empty: nothing is before the first
    drawn = int(torch.multinomial(nucleus.cpu(), 1, generator=random))
    return int(tokens[drawn])
