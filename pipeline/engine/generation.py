"""A question being answered: its own keys and values after the video's, its place, its writer."""

from pipeline.engine.answer import Answer, Question, Writer
from pipeline.engine.cache import KVCache
from pipeline.engine.step import Addition, embed
from pipeline.errors import BadInput
from pipeline.families.qwen2_vl.positions import text_positions
from pipeline.model.language import LanguageModel


class Turn:
    """Steps take its `addition` and it takes what they chose, until there is a `result`."""

    def __init__(
        self, language: LanguageModel, writer: Writer, *, cache: KVCache, position: int
    ) -> None:
        self._language = language
        self._writer = writer
        self._cache = cache
        self._position = position  # of the first token not in the cache yet
        self._pending: tuple[int, ...] = writer.question.ids
        self.result: Answer | BadInput | None = None

    @property
    def question(self) -> Question:
        return self._writer.question

    @property
    def num_reserved(self) -> int:
        """Tokens that its own memory has room for."""
        return self._cache.capacity

    def addition(self) -> Addition:
        """What the next step has to run: the whole question first, then the last token chosen."""
        embeddings = embed(self._language, self._pending)
        positions = text_positions(self._position, len(self._pending)).to(embeddings.device)
        return Addition(self._cache, embeddings, positions, self._writer.sampler)

    def accept(self, chosen: int | BadInput) -> str:
        """Take what the step chose; returns the text that became certain."""
        if not isinstance(chosen, int):
            self.result = chosen
            return ""
        self._position += len(self._pending)
        self._pending = (chosen,)
        text = self._writer.accept(chosen)
        if self._writer.finish_reason is not None:
            self.result = self._writer.answer
        return text
