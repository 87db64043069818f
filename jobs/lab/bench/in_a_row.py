"""One rank driven by hand, without the engine's loop: all of one thing, then all of the next."""

from collections.abc import Sequence

from pipeline.engine.commands import BeginGeneration, Step
from pipeline.engine.ids import GenerationId, StreamId
from pipeline.engine.question import Completion, Question
from pipeline.engine.rank import Rank
from pipeline.types import TokenChunk


def prefill(rank: Rank, stream: StreamId, chunks: Sequence[TokenChunk]) -> None:
    """Take in all chunks of an open stream, one after the other."""
    for chunk in chunks:
        report = rank.run([Step(prefills=((stream, chunk),))])
        for _, error in report.refused:
            raise error


def write(rank: Rank, asked: Sequence[tuple[StreamId, Question]]) -> list[Completion]:
    """Answer everything, a token of each per step, until the last one is done."""
    streams = [stream for stream, _ in asked]
    said: dict[GenerationId, Completion] = {}
    names = [GenerationId(stream, number) for number, stream in enumerate(streams)]
    for name, (stream, question) in zip(names, asked, strict=True):
        rank.control(BeginGeneration(name, question, streams.count(stream) == 1))
    while running := tuple(name for name in names if name not in said):
        report = rank.run([Step(generations=running)])
        said |= {name: done for name, _, done in report.written if done is not None}
    return [said[name] for name in names]
