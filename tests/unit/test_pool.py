"""Work goes to the member with the least of it."""

from pipeline.pool import Pool


def test_the_least_loaded_member_is_chosen_and_load_ends_when_it_is_given_back() -> None:
    pool = Pool(["a", "b", "c"])
    first, second, third = (pool.least_loaded(load=load) for load in (5, 1, 3))
    assert [each.member for each in (first, second, third)] == ["a", "b", "c"]
    fourth = pool.least_loaded(load=1)
    assert fourth.member == "b"
    third.give_back()
    assert pool.least_loaded(load=9).member == "c"
    for each in (first, second, fourth):
        each.give_back()
        each.give_back()  # twice is once
    assert [pool.least_loaded(load=1).member for _ in range(2)] == ["a", "b"]
