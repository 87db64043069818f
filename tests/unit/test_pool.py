"""Work goes to the actor with the least of it."""

from actors.pool import Pool


def test_the_least_loaded_actor_is_chosen_and_load_ends_with_its_block() -> None:
    pool = Pool(["a", "b", "c"])
    with pool.least_loaded(load=5) as first, pool.least_loaded(load=1) as second:
        with pool.least_loaded(load=3) as third:
            assert (first, second, third) == ("a", "b", "c")
            with pool.least_loaded(load=1) as fourth:
                assert fourth == "b"
        with pool.least_loaded(load=1) as fifth:
            assert fifth == "c"
    with pool.least_loaded(load=1) as last:
        assert last == "a"
