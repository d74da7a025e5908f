"""The process that a run's shards are forked off: it has imported what they need, and does nothing else.

So a shard begins within milliseconds, also one that takes the place of one that was killed, and all of them share the
memory of what is imported. See https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

# Elsewhere than on Linux a forked process cannot use the system's own libraries: each shard is spawned there.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
SAFE_PATH, MARK = "PYTHONSAFEPATH", "shards"
# The first, for each process imports the program's main module once more.
_PRELOADED = ["scraper.cli", "scraper.shards.preload"]


def prepare() -> None:
    """Start that process, unless it runs; it imports while the caller goes on, and ends when all that know it have ended.

    Raises OSError where it cannot be started.
    """
    resource_tracker.ensure_running()  # it would let the signals come that are held back below
    if METHOD != "forkserver":
        return
    forkserver.set_forkserver_preload(_PRELOADED)
    former = os.environ.get(SAFE_PATH)
    # Or else a file in the current folder would be taken for the module of that name.
    os.environ[SAFE_PATH] = former or MARK
    try:
        with signals_held_back():
            forkserver.ensure_running()
    finally:
        if former is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = former


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Have a process that is started inside begin with SIGINT and SIGTERM held back."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
