"""What every run has, alone or as one worker of many: its signals, its standard output, and its summary in a file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from scraper.errors import OutputError, UsageError

if TYPE_CHECKING:
    from scraper.cli.progress import Progress
    from scraper.crawler import Crawler, Result
    from scraper.shards.supervisor import Shards


_COUNTED = ("max_pages", "max_items", "max_errors")  # over a whole run


def without_limit(reason: str) -> str:
    """Return the option without which a run that has reached a limit would end at once when it goes on."""
    return f" -s crawl.{reason}=0" if reason in _COUNTED else ""


async def supervised(crawler: Crawler | Shards, progress: Progress, retry_failed: bool) -> Result:
    """Run with signal handlers: the first SIGINT or SIGTERM drains what is in flight, the second stops at once.

    A third ends the process as ``kill -9`` would, also where a callback holds the event loop up; nothing is lost by that.
    """
    import asyncio
    import signal
    from concurrent.futures import ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor()  # of asyncio.to_thread
    loop.set_default_executor(threads)
    signals = 0

    def interrupt() -> None:
        nonlocal signals
        signals += 1
        crawler.stop("interrupted")
        if signals > 1:
            crawler.kill()
        else:
            progress.note("stopping: waiting for what is in flight; once more to stop at once")

    came = 0

    def count(*_: object) -> None:
        """Python's own handler: it runs at once, the event loop's when a callback lets it."""
        nonlocal came
        came += 1
        if came > 2:
            os.write(2, b"\nended at once\n")
            os._exit(130)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
        signal.signal(number, count)
    progress.begin(crawler)
    try:
        return await crawler.run(retry_failed=retry_failed)
    finally:
        progress.pause()
        for number in (signal.SIGINT, signal.SIGTERM):
            # The loop still wakes by them, or one that came just before it waits for a thread would not be heard.
            loop.add_signal_handler(number, lambda: None)
            signal.signal(number, signal.default_int_handler)
        if signals > 1:  # what a callback has put in a thread may take for ever; the loop would wait for it at its end
            threads.shutdown(wait=False, cancel_futures=True)
            loop.set_default_executor(ThreadPoolExecutor())


@contextmanager
def prints_aside(needed: bool) -> Iterator[None]:
    """Have what a spider prints go to standard error, where standard output is ``needed`` for items alone."""
    real = sys.stdout
    if needed:
        sys.stdout = cast("TextIO", _Aside(real))
    try:
        yield
    finally:
        sys.stdout = real


class _Aside(io.TextIOBase):
    """Text goes to standard error; ``buffer`` is standard output's, for the exporter and the summary."""

    def __init__(self, real: TextIO) -> None:
        self.buffer = real.buffer

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def check_stats_file(name: str) -> None:
    """Raise UsageError where a summary could not be written to the file."""
    from scraper.exporters.files import check_writable

    try:
        check_writable(name)
    except OutputError as error:
        raise UsageError(str(error)) from None


def write_stats(name: str, result: Result) -> None:
    """Write the summary to a file; one that cannot be written makes the run a broken one."""
    import msgspec

    if name == "-":
        sys.stdout.buffer.write(msgspec.json.encode(result.stats, enc_hook=str) + b"\n")
        sys.stdout.buffer.flush()
        return
    try:
        Path(name).write_bytes(msgspec.json.encode(result.stats, enc_hook=str) + b"\n")
    except OSError as error:
        print(f"scrape: cannot write to {name}: {error.strerror}", file=sys.stderr)
        result.broken = True
