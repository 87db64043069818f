"""What an actor loads: within a limit, and whoever failed first is the one that is named."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NoReturn

import pytest
import torch

from actors import starting
from actors.starting import loaded
from pipeline.errors import CheckpointError, Transient
from tests.streams import new_rank
from tests.tiny_model import Tiny, tiny_model


class Rank:
    """A call to another rank, as far as anybody waits for it."""

    def __init__(self, error: BaseException | None = None, *, is_done: bool = True) -> None:
        self._answer: Future[int] = Future()
        if error is not None:
            self._answer.set_exception(error)
        elif is_done:
            self._answer.set_result(1)

    def future(self) -> "Future[int]":
        return self._answer


def fails(error: BaseException) -> Callable[[], NoReturn]:
    def load() -> NoReturn:
        raise error

    return load


def test_what_is_loaded_is_returned_once_all_ranks_are_ready() -> None:
    others: Any = [Rank(), Rank()]
    assert loaded(lambda: 7, start_s=60, others=others) == 7


def test_its_own_error_is_raised_as_it_is() -> None:
    with pytest.raises(CheckpointError, match="truncated"):
        loaded(fails(CheckpointError("model.safetensors", "truncated")), start_s=60)


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_the_rank_that_failed_is_named_and_not_the_one_that_waited_for_it(
    is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "CAUSE_S", 0.1)
    own = fails(Transient("a connection was closed")) if not is_first else never
    others: Any = [Rank(is_done=False), Rank(CheckpointError("model.safetensors", "truncated"))]
    with pytest.raises(Transient, match="rank 2 cannot start: .*truncated"):
        loaded(own, start_s=60, others=others)


def test_who_does_not_load_in_time_is_named_with_the_limit() -> None:
    with pytest.raises(Transient, match=r"it has not loaded after 0.05 s \(start_s\)"):
        loaded(never, start_s=0.05)
    earlier = set(threading.enumerate())

    class Late(Rank):
        """Not loaded, unlike the one that asks it."""

        def future(self) -> "Future[int]":
            for thread in set(threading.enumerate()) - earlier:
                thread.join()
            return super().future()

    others: Any = [Rank(), Late(is_done=False)]
    with pytest.raises(Transient, match="rank 2 has not loaded"):
        loaded(lambda: 7, start_s=0.05, others=others)


def test_a_rank_computes_a_step_before_anybody_asks_and_holds_nothing_of_it() -> None:
    rank = new_rank(tiny_model(Tiny()))
    num_free = rank.admission.num_free_tokens
    seen = list[torch.Size]()
    rank._writing.language.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    rank.warm_up()
    assert seen
    assert (rank.streams, rank.admission.num_free_tokens) == ((), num_free)


def never() -> NoReturn:
    threading.Event().wait()
    raise AssertionError
