"""Videos that wait for one actor: whoever is nearest to its end goes first, nobody starves."""

from pipeline.stages.order import FAIR_EVERY, LeastLeftFirst

LEFT = {"long": 900, "short": 2, "middle": 40}


def sort(order, waiting):
    return order.sorted(waiting, left=LEFT.__getitem__)


def test_the_one_with_least_left_goes_first_and_equals_in_their_order():
    order = LeastLeftFirst()
    assert sort(order, ["long", "short", "middle"]) == ["short", "middle", "long"]
    equals = [("b", 1), ("a", 1), ("c", 0)]
    assert order.sorted(equals, left=lambda each: each[1]) == [("c", 0), ("b", 1), ("a", 1)]


def test_every_eighth_turn_is_of_the_one_that_waited_longest():
    order = LeastLeftFirst()
    first = [sort(order, ["long", "short"])[0] for _ in range(3 * FAIR_EVERY)]
    assert first == (["short"] * (FAIR_EVERY - 1) + ["long"]) * 3
