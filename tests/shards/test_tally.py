"""The pages of a run are lent to its shards, never more than there are."""

from __future__ import annotations

from random import Random

from scraper.shards.tally import Tally


def test_nothing_before_all_have_joined() -> None:
    """What a shard has fetched in an earlier run counts, so nobody gets any before all have said."""
    tally = Tally(100, 2)
    tally.joined(0, 0)
    tally.want(0)
    assert tally.decide() == ([], [])
    tally.joined(1, 90)
    assert tally.decide() == ([(0, 10)], [])


def test_what_is_not_needed_comes_back() -> None:
    """Where nothing is left the others are asked once, and again after they have stirred."""
    tally = Tally(20, 2)
    tally.joined(0, 0)
    tally.joined(1, 0)
    tally.want(0)
    assert tally.decide() == ([(0, 16)], [])
    tally.want(0)
    tally.want(1)
    assert tally.decide() == ([(0, 4)], [0])
    tally.back(0, 0)
    assert tally.decide() == ([], [])
    tally.stirred(0)
    assert tally.decide() == ([], [0])
    tally.back(0, 3)
    assert tally.decide() == ([(1, 3)], [])


def test_who_has_passed_its_page_on_gives_what_it_holds() -> None:
    """It asked for one more while it still had the page; now the other wants it, and there is no more than one in all."""
    tally = Tally(1, 2)
    tally.joined(0, 0)
    tally.joined(1, 0)
    tally.want(1)
    assert tally.decide() == ([(1, 1)], [])
    tally.want(1)
    assert tally.decide() == ([], [0])
    tally.back(0, 0)
    tally.want(0)
    assert tally.decide() == ([], [1])
    tally.back(1, 1)
    assert tally.decide() == ([(0, 1)], [])


def test_never_more_than_there_are() -> None:
    """Whatever shards ask, give back and die: they fetch at most the whole, and all of it in the end."""
    rng = Random(7)
    for most in (1, 17, 200):
        tally, held, done = Tally(most, 3), [0, 0, 0], [0, 0, 0]
        dead: set[int] = set()
        for shard in range(3):
            tally.joined(shard, 0)
        for _ in range(5000):
            shard = rng.randrange(3)
            if shard in dead:
                dead.remove(shard)
                tally.joined(shard, done[shard])
            elif held[shard] > done[shard] and rng.random() < 0.6:
                done[shard] += 1
                tally.stirred(shard)
            elif rng.random() < 0.02:
                held[shard] = done[shard]
                tally.died(shard)
                dead.add(shard)
            else:
                tally.want(shard)
            grants, recalls = tally.decide()
            assert not dead & {*recalls, *(each for each, _ in grants)}
            for each, pages in grants:
                held[each] += pages
            for each in recalls:
                back = (held[each] - done[each]) // 2 if rng.random() < 0.5 else held[each] - done[each]
                held[each] -= back
                tally.back(each, back)
            assert sum(held) <= most
        assert sum(done) == most
