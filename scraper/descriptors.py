"""File descriptors: how many connections this process can have open."""

from __future__ import annotations

import resource

from scraper.log import Log

_SPARE = 100  # for everything that is not a connection
_MOST = 1_048_576  # some systems say "unlimited", or a number that no table of theirs would hold
_MAX_IDLE = 1000


def affordable(concurrency: int, log: Log) -> tuple[int, int]:
    """Raise the limit of open files to the hard one; return the requests at a time that it bears, and the idle connections.

    Where that is fewer requests than ``concurrency``, the log says so in one line.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited:
        wanted = max(soft, _MOST if hard == unlimited else min(hard, _MOST))
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    connections = _MOST if soft == unlimited else max(2, soft - _SPARE)
    idle = min(_MAX_IDLE, max(1, connections // 5))
    if concurrency > connections - idle:
        concurrency = connections - idle
        log.warning(f"crawl.concurrency lowered to {concurrency}: this system allows {hard} open files (ulimit -Hn)")
    return concurrency, idle
