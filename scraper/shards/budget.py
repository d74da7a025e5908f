"""A shard's part of the settings: all shards together ask no more of a host, and take no more, than one process would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from scraper.frontiers.split import Split
from scraper.host_settings import HostSettings
from scraper.settings import Host, Settings


def make_split(index: int, count: int, by: Literal["host", "url"], settings: Settings) -> Split:
    """Return the part of a shard in a run with these settings."""
    # A host's pages can be counted by one shard only.
    return Split(index, count, by, _budget_of(settings), keeps_whole=bool(settings.crawl.max_pages_per_host))


def part_of(settings: Settings, split: Split) -> Settings:
    """Return the settings of a shard: its share of what is divided; the run's own limits are the supervisor's."""
    crawl, politeness = settings.crawl, settings.politeness
    queries = crawl.max_queries_per_path
    return replace(
        settings,
        crawl=replace(
            crawl,
            concurrency=max(1, split.share(crawl.concurrency)),
            max_pages=0,
            max_items=0,
            max_errors=0,
            max_seconds=0,
            max_queries_per_path=max(1, split.share(queries)) if queries and split.divides_hosts else queries,
        ),
        politeness=replace(
            politeness, concurrency_per_host=_slots(split, politeness.concurrency_per_host, politeness.delay)
        ),
        hosts={name: _host_part(table, settings, split) for name, table in settings.hosts.items()},
    )


def _host_part(table: Host, settings: Settings, split: Split) -> Host:
    """Return a shard's part of a [hosts] table. One that changes the slots or the delay says both, for they go together."""
    if table.concurrency is None and table.delay is None:
        return table
    each = settings.politeness
    slots = each.concurrency_per_host if table.concurrency is None else table.concurrency
    return replace(table, concurrency=_slots(split, slots, each.delay if table.delay is None else table.delay))


def _slots(split: Split, slots: int, delay_s: float) -> int:
    return split.share(slots) if split.is_divisible(slots, delay_s) else slots


def _budget_of(settings: Settings) -> Callable[[str], tuple[int, float]]:
    hosts, each = HostSettings(settings.hosts), settings.politeness

    def budget(host: str) -> tuple[int, float]:
        own = hosts.for_host(host) if hosts else None
        if own is None:
            return each.concurrency_per_host, each.delay
        return (
            each.concurrency_per_host if own.concurrency is None else own.concurrency,
            each.delay if own.delay is None else own.delay,
        )

    return budget
