"""Which pictures are whole, by which of their packets' pictures came out of the decoder."""

from dataclasses import dataclass

from pipeline.video.harvest import Harvest

# An open group of pictures: the B-pictures 6 and 7 are decoded behind the keyframe 5 and shown
# before it; of them 6 is one that others refer to. So are 12 and 13 before the keyframe 11.
STAMPS = [0, 3, 2, 1, 4, 7, 6, 5, 10, 9, 8, 13, 12, 11, 14]
KEYS = (0, 5, 11)
REFERRED_TO = (1, 4, 6, 8, 12, 14)


@dataclass(frozen=True)
class Picture:
    is_corrupt: bool = False


def damaged(
    *, lost: tuple[int, ...] = (), corrupt: tuple[int, ...] = (), holed: tuple[int, ...] = ()
) -> list[int]:
    harvest: Harvest[Picture] = Harvest(tuple(range(len(STAMPS))), num_threads=1)
    for number, stamp in enumerate(STAMPS):
        is_key = number in KEYS
        harvest.feed(
            number,
            stamp=stamp,
            is_key=is_key,
            is_referred_to=not is_key and number in REFERRED_TO,
            is_holed=number in holed,
        )
        if number not in lost:
            harvest.take(number, Picture(is_corrupt=number in corrupt))
    harvest.drain()
    return [number for number, picture in enumerate(harvest.settled()) if picture is None]


def test_what_is_decoded_behind_a_broken_picture_is_damaged_up_to_the_next_keyframe() -> None:
    assert damaged(lost=(1,)) == damaged(corrupt=(1,)) == [1, 2, 3, 4, 6, 7]


def test_what_comes_out_of_a_packet_with_a_hole_is_broken_whatever_the_decoder_says() -> None:
    for number in range(len(STAMPS)):
        assert damaged(holed=(number,)) == damaged(corrupt=(number,))


def test_what_does_not_come_out_of_a_packet_with_a_hole_is_broken_though_nobody_complains() -> None:
    for is_holed in (True, False):
        harvest: Harvest[Picture] = Harvest((0, 2), num_threads=1)
        harvest.feed(0, stamp=0, is_key=True)
        harvest.take(0, Picture())
        harvest.feed(1, stamp=1, is_key=False, is_referred_to=None, is_holed=is_holed)
        harvest.feed(2, stamp=2, is_key=False)
        harvest.take(2, Picture())
        harvest.drain()
        assert [picture is None for picture in harvest.settled()] == [False, is_holed]


def test_a_broken_picture_to_which_none_refers_costs_itself_alone() -> None:
    assert damaged(lost=(2,)) == damaged(corrupt=(2,)) == [2]


def test_what_is_broken_before_its_keyframe_is_shown_costs_its_like_in_that_group_only() -> None:
    assert damaged(lost=(6,)) == [6, 7]


def test_a_broken_keyframe_costs_its_group_and_what_is_shown_before_the_next() -> None:
    assert damaged(corrupt=(5,)) == [5, 6, 7, 8, 9, 10, 12, 13]
