"""Views and requests as the engine takes them: ids around a window, and questions after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import EngineLimits
from pipeline.engine.layout import PromptWindow
from pipeline.engine.question import Question
from pipeline.families.qwen2_vl.chat import ChatLayout, Medium, Run
from pipeline.tasks.requests import Request, View

PROMPT_SLACK = 256  # tokens of a prompt around the texts it quotes
LINE_SLACK = 32  # tokens around each of them


@dataclass(frozen=True, slots=True)
class Prompts:
    """One checkpoint's chat layout, within one engine's limits."""

    layout: ChatLayout
    limits: EngineLimits

    def media(self, view: View | None) -> list[PromptWindow]:
        """What a stream for this view opens with; nothing for prompts of text alone."""
        if view is None:
            return []
        medium = Medium.IMAGE if view.plan.is_still else Medium.VIDEO
        (ids_before,) = self.layout.before_media([medium])
        return [PromptWindow(ids_before=ids_before, plan_hash=view.plan.hash, window=view.window)]

    def questions(
        self, view: View | None, requests: Sequence[Request], *, earlier: Sequence[Run] = ()
    ) -> list[Question]:
        """The requests as questions on a stream that was opened with this view.

        earlier: for each request the ids of the conversation that it goes on with; none if it
        begins one.
        """
        begin = self.layout.text_only if view is None else self.layout.question
        return [
            Question(
                ids=(*before, *self.layout.follow_up(request.prompt))
                if before
                else begin(request.prompt),
                sampling=request.sampling,
                constraint=request.constraint,
                keep_control=request.kind == "ground",
            )
            for request, before in zip(requests, earlier or ((),) * len(requests), strict=True)
        ]

    def conversation(self, turns: Sequence[tuple[str, str]]) -> Run:
        """Earlier questions and answers as `questions` takes them; none if there are no turns."""
        return self.layout.conversation(turns)

    def max_parts(self, max_new_tokens: int) -> int:
        """How many texts of that many tokens fit one prompt of text alone; at least 2."""
        room = self.limits.question_tokens - max_new_tokens - PROMPT_SLACK
        return max(2, room // (max_new_tokens + LINE_SLACK))
