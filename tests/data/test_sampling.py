"""The image of each draw: every image once per round, in an order that depends only on seed, stream and round."""

import pytest

from gan_nst.data.batches import image_index, mix


def draws(seed, stream, first, last, count):
    return [image_index(seed, stream, draw, count) for draw in range(first, last)]


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_each_round_visits_every_image_once(count):
    for number in range(4):
        visited = draws(0, "real_a", number * count, (number + 1) * count, count)
        assert sorted(visited) == list(range(count))


def test_orders_differ_between_rounds_streams_and_seeds():
    orders = [
        tuple(draws(seed, stream, number * 30, (number + 1) * 30, 30))
        for seed in (0, 1)
        for stream in ("real_a", "real_b")
        for number in range(3)
    ]
    assert len(set(orders)) == len(orders) == 12


def test_pairs_of_two_streams_are_random():
    """With equally many images, a pair of equal positions comes up once per round on average."""
    count, rounds = 50, 200
    a, b = (draws(0, stream, 0, count * rounds, count) for stream in ("real_a", "real_b"))
    meetings = sum(x == y for x, y in zip(a, b, strict=True))
    assert abs(meetings - rounds) < 5 * rounds**0.5
    assert len(set(zip(a, b, strict=True))) > 0.95 * count**2


def test_streams_of_unequal_sizes_each_keep_their_own_rounds():
    a, b = draws(0, "real_a", 0, 60, 12), draws(0, "real_b", 0, 60, 5)
    assert all(sorted(a[n : n + 12]) == list(range(12)) for n in range(0, 60, 12))
    assert all(sorted(b[n : n + 5]) == list(range(5)) for n in range(0, 60, 5))


def test_a_draw_does_not_depend_on_what_was_drawn_before():
    forward = draws(3, "real_a", 0, 200, 9)
    backward = [image_index(3, "real_a", draw, 9) for draw in reversed(range(200))]
    assert backward[::-1] == forward
    assert image_index(3, "real_a", 10**12, 9) in range(9)


def test_places_are_even():
    """Each image comes first in a round equally often."""
    first = [image_index(0, "real_a", 4 * number, 4) for number in range(2000)]
    assert all(abs(first.count(index) - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for index in range(4))


def test_mix_depends_on_every_part_and_gives_a_seed():
    parts = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a"), ("a", 0, 1), (0, "a", 1, 0)]
    seeds = [mix(*p) for p in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [mix(*p) for p in parts]


def test_mix_is_the_same_on_every_machine():
    """A recorded number: with another, every resumed run would get other images than promised."""
    assert mix(0, "real_a", 0) == 7954472497141484916
