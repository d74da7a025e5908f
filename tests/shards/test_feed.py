"""Shards that have nothing to do get some of what waits at others, and not twice for one need."""

from __future__ import annotations

from random import Random

from scraper.frontiers.split import portion
from scraper.shards.feed import Feed


def test_the_one_with_most_gives() -> None:
    """What its slots are for; where something waits nothing comes."""
    feed = Feed()
    feed.hungry(0, 10)
    assert feed.decide([0, 0, 0]) == []
    assert feed.decide([0, 4, 7]) == [(2, 0, 10)]
    feed.hungry(1, 3)
    assert feed.decide([0, 4, 7]) == []
    assert feed.decide([0, 0, 7]) == [(2, 1, 3)]


def test_a_portion_is_for_the_slots_or_half() -> None:
    """As much as there are slots for; half of what there is where that is more."""
    assert [portion(waiting, 3) for waiting in (0, 1, 3, 5, 7, 1001)] == [0, 1, 3, 3, 3, 500]


def test_what_is_left_is_given_once() -> None:
    """Two that are fed by the same one share what it has."""
    feed = Feed()
    feed.hungry(0, 6)
    feed.hungry(1, 6)
    assert feed.decide([0, 0, 8]) == [(2, 0, 6), (2, 1, 6)]
    feed = Feed()
    feed.hungry(0, 6)
    feed.hungry(1, 6)
    assert feed.decide([0, 0, 6]) == [(2, 0, 6)]  # nothing is left


def test_nobody_is_fed_again_before_it_has_come() -> None:
    """Free slots that were told meanwhile are those that it is for; what they are afterwards is told again."""
    feed = Feed()
    feed.hungry(0, 5)
    assert feed.decide([0, 9]) == [(1, 0, 5)]
    feed.hungry(0, 5)
    assert feed.decide([0, 4]) == []
    feed.carried(1, 0)  # a chunk of other links, on its way before
    feed.gave(1, 0, 5)
    assert feed.decide([0, 4]) == []
    feed.carried(1, 0)
    assert feed.decide([0, 4]) == []
    feed.hungry(0, 2)
    assert feed.decide([0, 4]) == [(1, 0, 2)]


def test_one_that_has_nothing_says_so() -> None:
    """Then another one may, or the same one later."""
    feed = Feed()
    feed.hungry(0, 5)
    assert feed.decide([0, 1, 3]) == [(2, 0, 5)]
    feed.gave(2, 0, 0)
    assert feed.decide([0, 1, 0]) == [(1, 0, 1)]


def test_the_dead_feed_nobody() -> None:
    """Who waited for one that died may be fed by another; who died is hungry no more."""
    feed = Feed()
    feed.hungry(0, 5)
    assert feed.decide([0, 9, 3]) == [(1, 0, 5)]
    feed.gave(1, 0, 5)
    feed.died(1)
    assert feed.decide([0, 0, 3]) == []
    feed.hungry(0, 5)
    assert feed.decide([0, 0, 3]) == [(2, 0, 5)]
    feed.gave(2, 0, 3)
    feed.died(0)
    feed.carried(2, 0)
    assert feed.decide([0, 0, 3]) == []


def test_two_do_not_pass_one_request_to_and_fro() -> None:
    """However messages are delayed: in the end as many requests have moved as there were slots for, or fewer."""
    for seed in range(200):
        rng = Random(seed)
        feed, free, waiting, under_way = Feed(), rng.randint(5, 9), rng.randint(1, 9), []
        moved, wanted = 0, min(free, waiting)
        for _ in range(60):
            if free and rng.random() < 0.5:
                feed.hungry(0, free)
            for giver, shard, slots in feed.decide([0, waiting]):
                assert (giver, shard) == (1, 0)
                under_way.append(portion(waiting, slots))
                waiting -= under_way[-1]
                feed.gave(1, 0, under_way[-1])
            if under_way and rng.random() < 0.3:
                feed.carried(1, 0)
                moved, free = moved + under_way[0], free - under_way.pop(0)
        assert free >= 0
        assert moved == wanted
