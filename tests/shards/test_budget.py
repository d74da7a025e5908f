"""The shards' parts of a run are disjoint, and together no more than the whole."""

from __future__ import annotations

from collections import Counter

import pytest

from scraper.http import Request
from scraper.layers import mapping_layer, merge
from scraper.settings import Settings
from scraper.shards.budget import make_split, part_of

TABLES = {
    "politeness.concurrency_per_host": 10,
    "crawl.concurrency": 65,
    "hosts": {"slow.example": {"delay": 2.0}, "small.example": {"concurrency": 2}, "big.example": {"concurrency": 9}},
}


def settings(**values: object) -> Settings:
    """Return settings of a few hosts that differ."""
    return merge([mapping_layer({**TABLES, **values}, "test")])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("host", ["any.example", "slow.example", "small.example", "big.example"])
def test_a_hosts_slots_add_up(host: str, count: int) -> None:
    """Those shards that may fetch a host's pages have its slots together, and its delay is in one of them."""
    whole = settings()
    split, slots = make_split(0, count, "url", whole), 0
    fetching = set(range(count)) if split.spreads(host) else {split.owner(host)}
    for index in fetching:
        part = part_of(whole, make_split(index, count, "url", whole))
        own = part.hosts.get(host)
        slots += part.politeness.concurrency_per_host if own is None or own.concurrency is None else own.concurrency
        assert own is None or own.delay == whole.hosts[host].delay
    assert slots == {"any.example": 10, "slow.example": 10, "small.example": 2, "big.example": 9}[host]
    assert len(fetching) == (1 if host == "slow.example" or (host == "small.example" and count > 2) else count)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_all_agree_about_homes(count: int) -> None:
    """Every shard knows the same home for a URL, also where hosts do not differ, and each has its part of them."""
    splits = [make_split(index, count, "url", settings()) for index in range(count)]
    splits += [make_split(index, count, "url", settings(hosts={})) for index in range(count)]
    homes: Counter[int] = Counter()
    for number in range(3000):
        request = Request(f"http://any.example/{number}")
        found = {split.home(request) for split in splits}
        assert len(found) == 1
        homes.update(found)
    assert min(homes.values()) > 0.8 * 3000 / count


@pytest.mark.parametrize(
    "limit", [{"politeness.delay": 1.0}, {"politeness.concurrency_per_host": 3}, {"crawl.max_pages_per_host": 9}]
)
def test_what_keeps_a_host_whole_moves_no_home(limit: dict[str, object]) -> None:
    """It is fetched by one shard; which one knows a page stays, for a resumed run may have other limits."""
    split, usual = make_split(0, 4, "url", settings(hosts={}, **limit)), make_split(0, 4, "url", settings(hosts={}))
    hosts = [f"h{number}.example" for number in range(40)]
    assert not any(map(split.spreads, hosts))
    assert all(map(usual.spreads, hosts))
    assert len(set(map(split.owner, hosts))) == 4
    for number in range(200):
        request = Request(f"http://{hosts[number % 40]}/{number}")
        assert split.home(request) == usual.home(request)


def test_by_host_a_host_has_one_shard() -> None:
    """All pages of a host have one home, and hosts have different ones."""
    split = make_split(0, 4, "host", settings())
    assert len({split.home(Request(f"http://any.example/{number}")) for number in range(50)}) == 1
    assert len({split.home(Request(f"http://h{number}.example/")) for number in range(50)}) == 4


def test_what_is_the_whole_runs() -> None:
    """Slots over all hosts are divided; limits of the run are not a shard's; a capped host stays whole."""
    whole = settings(**{"crawl.max_pages": 5, "crawl.max_items": 6})
    parts = [part_of(whole, make_split(index, 4, "host", whole)) for index in range(4)]
    assert [part.crawl.concurrency for part in parts] == [17, 16, 16, 16]
    assert {(part.crawl.max_pages, part.crawl.max_items) for part in parts} == {(0, 0)}
    assert make_split(0, 4, "url", settings(**{"crawl.max_pages_per_host": 3})).divides_hosts is False
