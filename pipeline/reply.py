"""What a session's answers leave behind: the conversation on each window, and what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.engine.question import Completion, Question
from pipeline.tasks.records import Answer
from pipeline.tasks.requests import Request

Ids = tuple[int, ...]
Turns = Sequence[tuple[str, str]]  # questions and the answers to them


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one question over all its prompts, those included that bring answers together.

    num_cached: of the prompts' tokens, those that were in the decoder before. num_video: those that
    show the video.
    """

    num_prompt: int = 0
    num_video: int = 0
    num_cached: int = 0
    num_completion: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what a follow-up of it needs: the conversation on each window, as ids."""

    answer: Answer
    conversation: dict[int | None, Ids] = field(default_factory=dict, repr=False)
    usage: Usage = field(default=Usage(), compare=False)  # a stream that is there costs less


class Ledger:
    """What is kept of every task while it is performed: its conversations and its tokens."""

    def __init__(self) -> None:
        self.conversations: dict[int, dict[int | None, Ids]] = {}
        self.usages: dict[int, Usage] = {}

    def add(
        self,
        request: Request,
        question: Question,
        said: Completion,
        *,
        num_video: int,
        is_new: bool,
    ) -> None:
        """What was asked about a view. is_new: it was watched for this."""
        if said.error is None:
            ids = question.ids + said.token_ids
            self.conversations.setdefault(request.task_index, {})[request.window_index] = ids
        self.count(request, question, said, num_video=num_video, is_new=is_new)

    def count(
        self,
        request: Request,
        question: Question,
        said: Completion,
        *,
        num_video: int = 0,
        is_new: bool = True,
    ) -> None:
        """Its tokens alone, as of what brings texts together."""
        before = self.usages.get(request.task_index, Usage())
        self.usages[request.task_index] = Usage(
            num_prompt=before.num_prompt + num_video + len(question.ids),
            num_video=before.num_video + num_video,
            num_cached=before.num_cached + (0 if is_new else num_video),
            num_completion=before.num_completion + len(said.token_ids),
        )
