"""A breaker tells one item that fails from surroundings in which nobody gets through."""

import pytest

from pipeline.breaker import FIRST_PAUSE, IN_A_ROW, LAST_PAUSE, Breaker

PATIENCE_S = 600.0
FIRST_S, LAST_S = FIRST_PAUSE * PATIENCE_S, LAST_PAUSE * PATIENCE_S


class Clock:
    """Stands still unless the test moves it."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(patience_s=PATIENCE_S, clock=clock)


def fail_in_a_row(breaker: Breaker, count: int = IN_A_ROW) -> None:
    for number in range(count):
        breaker.failed(f"item {number}")


def test_one_item_that_always_fails_never_opens_it(breaker: Breaker) -> None:
    for _ in range(10 * IN_A_ROW):
        breaker.failed("the same")
    assert not breaker.is_open
    assert breaker.wait_s == 0


def test_different_items_that_fail_in_a_row_open_it(breaker: Breaker) -> None:
    fail_in_a_row(breaker, IN_A_ROW - 1)
    assert not breaker.is_open
    breaker.failed("one more")
    assert breaker.is_open
    assert breaker.num_failed == IN_A_ROW
    assert breaker.wait_s == FIRST_S


def test_a_success_between_them_begins_the_count_again(breaker: Breaker, clock: Clock) -> None:
    for _ in range(5):
        fail_in_a_row(breaker, IN_A_ROW - 1)
        breaker.passed(clock())
    assert not breaker.is_open
    assert breaker.passed_s == clock()


def test_pauses_between_probes_double_up_to_a_limit(breaker: Breaker, clock: Clock) -> None:
    fail_in_a_row(breaker)
    pauses = []
    for _ in range(8):
        pauses.append(breaker.wait_s)
        clock.now_s += breaker.wait_s
        assert breaker.wait_s == 0
        breaker.failed("the probe")
    assert pauses[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert pauses[-1] == LAST_S == max(pauses)


def test_what_was_under_way_when_it_opened_does_not_put_the_next_probe_off(
    breaker: Breaker, clock: Clock
) -> None:
    fail_in_a_row(breaker)
    clock.now_s += FIRST_S / 2
    breaker.failed("begun before")
    assert breaker.wait_s == FIRST_S / 2


def test_the_first_success_closes_it_and_all_may_pass(breaker: Breaker, clock: Clock) -> None:
    fail_in_a_row(breaker)
    clock.now_s += breaker.wait_s
    breaker.failed("the probe")
    breaker.passed(clock())
    assert not breaker.is_open
    assert breaker.wait_s == 0
    fail_in_a_row(breaker)
    assert breaker.wait_s == FIRST_S  # it begins as at first


def test_patience_counts_from_when_it_opened(breaker: Breaker, clock: Clock) -> None:
    clock.now_s += 10 * PATIENCE_S
    assert not breaker.is_spent
    fail_in_a_row(breaker)
    clock.now_s += PATIENCE_S - 1
    breaker.failed("the probe")
    assert not breaker.is_spent
    clock.now_s += 1
    assert breaker.is_spent


def test_who_knows_better_may_open_it(breaker: Breaker) -> None:
    breaker.trip()
    assert breaker.is_open
    assert breaker.wait_s == FIRST_S


def test_a_success_that_began_before_the_failures_says_nothing_of_them(
    breaker: Breaker, clock: Clock
) -> None:
    """As of a video that was fetched before its store began to refuse."""
    began_s = clock()
    clock.now_s += 1
    fail_in_a_row(breaker, IN_A_ROW - 1)
    breaker.passed(began_s)
    breaker.failed("one more")
    assert breaker.is_open
    breaker.passed(began_s)
    assert breaker.is_open
    breaker.passed(clock())
    assert not breaker.is_open
