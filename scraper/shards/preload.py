"""What every shard imports, for the process that shards are forked off: each of them begins with it."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module

from scraper.downloaders.tls import late_authorities
from scraper.shards.forkserver import MARK, SAFE_PATH

_MODULES = (
    "aiomultiprocess",
    "scraper.downloaders.aiohttp",
    "scraper.exporters.jsonl",
    "scraper.frontiers.sharded",
    "scraper.frontiers.sqlite",
    "scraper.middlewares.cookies",
    "scraper.middlewares.redirect",
    "scraper.middlewares.retry",
    "scraper.selector",
    "scraper.shards.worker",
)

for name in (*_MODULES, "uvloop"):
    with late_authorities(), suppress(Exception):  # what cannot be imported, a shard will tell
        import_module(name)

if os.environ.get(SAFE_PATH) == MARK:
    del os.environ[SAFE_PATH]
