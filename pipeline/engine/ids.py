"""Names of what is open in an engine or a reader: values, so that nobody has to parse them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamId:
    """A stream in a decoder, or a video in a reader.

    owner: the stream host that opened it. life: which run of that host, since after a restart it
    has nothing open. number: counted by the host. yields: to those that do not, wherever both wait:
    batch work is for later, a request for somebody who waits.
    """

    owner: str
    life: str
    number: int
    yields: bool = False

    def __str__(self) -> str:
        return f"{self.owner}/{self.life}-{self.number}"


@dataclass(frozen=True, slots=True)
class GenerationId:
    """An answer being written on a stream; number: counted by the engine."""

    stream: StreamId
    number: int
