"""What a client is told when it gets no answer: OpenAI's shape, a status, and nothing of ours."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import BadInput, ConfigError, FailureCode, StoreFull, Transient, VidrayError
from pipeline.settings import sentence

SHOULD_RETRY = {408, 429, 500, 503, 504}
_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


@dataclass(eq=False)
class Refusal(VidrayError):
    """An error as the client sees it. param: the key of the body that is at fault."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    body: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        super().__init__(self.message)
        kind = _KINDS.get(self.status)
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        what = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        self.body = {"error": what}

    @property
    def fields(self) -> dict[str, Any]:
        """What it is made of."""
        names = ("status", "code", "message", "param", "retry_after_s")
        return {name: getattr(self, name) for name in names}

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.status in SHOULD_RETRY else {"x-should-retry": "false"}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        return headers


def refusal_of(error: BaseException) -> Refusal:
    """Any error as the client may see it; an unknown one is a bug, and says nothing."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, BadInput) and error.code is FailureCode.NOT_FOUND:
        return not_found("file")  # it was removed while its stream is open
    if isinstance(error, BadInput) and error.code is not FailureCode.WORKER_LOST:
        return Refusal(422, error.code.value, error.detail)
    if isinstance(error, BadInput | Transient):
        return Refusal(503, "lost", "a part of this service was lost meanwhile; try again")
    if isinstance(error, ConfigError):
        return Refusal(422, "invalid", str(error))
    if isinstance(error, StoreFull):
        told = "this server's disk has no room for it; delete files of yours, or try again later"
        return Refusal(507, "disk_full", told)
    if isinstance(error, TimeoutError):
        told = "no answer within what one may take here; ask for less of the video, or fewer words"
        return Refusal(504, "deadline", told)
    return Refusal(500, "internal", "an error on our side")


def invalid(errors: Sequence[Any]) -> Refusal:
    """What is wrong with a request, of pydantic's errors; a body that was read in several ways, by
    the one that got furthest."""
    first = max(errors, key=lambda each: len(each["loc"]))
    is_unknown = first["type"] == "extra_forbidden"
    *before, last = first["loc"] or (None,)
    names = [step for step in before if _is_key(step)]
    if is_unknown or _is_key(last):
        names.append(last)
    told = sentence({**first, "loc": tuple(names[-1:])})
    return Refusal(422, "unknown_key" if is_unknown else "invalid", told, *names[-1:])


def _is_key(step: object) -> bool:
    """A client's own key, not a place in a list or what pydantic calls one kind of several."""
    return isinstance(step, str) and step != "str" and "[" not in step


def above(name: str, *, most: float, got: float) -> Refusal:
    return Refusal(422, "above_ceiling", f"{name} is at most {most:g}, got {got:g}", name)


def remote_refused(message: str) -> Refusal:
    return Refusal(422, "remote_refused", message, "url")


def remote_failed(message: str) -> Refusal:
    return Refusal(422, "remote_failed", f"the video cannot be had: {message}", "url")


def not_found(what: str) -> Refusal:
    return Refusal(404, "not_found", f"there is no such {what}")
