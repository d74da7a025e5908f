"""What a run shows: live progress on a terminal, a log line every 10 s elsewhere, and the summary at the end."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from scraper.log import to_stderr

if TYPE_CHECKING:
    from scraper.crawler import Crawler, Result
    from scraper.shards.supervisor import Shards

_REFRESH_S = 0.25
_LINE_EVERY_S = 10.0


class Progress(Protocol):
    """Shows how a run goes. Log lines pass through ``write``, so that they do not tear a live display."""

    def begin(self, crawler: Crawler | Shards) -> None:
        """Start showing; inside the run's event loop."""

    def write(self, line: str) -> None:
        """Show a log line."""

    def note(self, text: str) -> None:
        """Say something to the person at the keyboard, who may have asked for quiet."""

    def pause(self) -> None:
        """Stop showing: the run is over."""

    def end(self, result: Result, outputs: list[str]) -> None:
        """Show the summary."""


def make_progress(style: str, quiet: bool, *, items_on_stdout: bool = False) -> Progress:
    """Return the progress for a log format: live on a terminal with "auto", lines otherwise.

    Items on standard output would be torn by a live line, be it that they come to the terminal at once or through a pipe.
    """
    if quiet:
        return Lines(summary="none", every_s=0)
    if style == "auto" and sys.stderr.isatty() and (not items_on_stdout or _stdout_is_file()):
        return Live()
    return Lines(summary="json" if style == "json" else "text", every_s=_LINE_EVERY_S)


def _stdout_is_file() -> bool:
    return stat.S_ISREG(os.fstat(1).st_mode)


class Rate:
    """Pages a second over the last few seconds."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def update(self, pages: int) -> float:
        """Note the count of now; return the rate."""
        now = time.monotonic()
        self._marks.append((now, pages))
        while len(self._marks) > 2 and now - self._marks[0][0] > 3:
            self._marks.pop(0)
        (then, before), *_ = self._marks
        return (pages - before) / (now - then) if now > then else 0.0


class Lines:
    """A log line now and then, for files and pipes."""

    def __init__(self, summary: str, every_s: float) -> None:
        self._summary = summary
        self._every_s = every_s
        self._handle: asyncio.TimerHandle | None = None

    def begin(self, crawler: Crawler | Shards) -> None:
        """Start the lines."""
        if self._every_s:
            self._tick(crawler, Rate(), first=True)

    def write(self, line: str) -> None:
        """Write a log line to standard error."""
        to_stderr(line)

    def note(self, text: str) -> None:
        """Write it in the form of the summary, and as that not at all for -q."""
        if self._summary == "json":
            import msgspec

            text = msgspec.json.encode({"event": text}).decode()
        if self._summary != "none":
            self.write(text)

    def pause(self) -> None:
        """Stop the lines."""
        if self._handle is not None:
            self._handle.cancel()

    def end(self, result: Result, outputs: list[str]) -> None:
        """Write the summary."""
        if self._summary == "json":
            import msgspec

            self.write(msgspec.json.encode({"event": "summary", **result.stats}, enc_hook=str).decode())
        elif self._summary == "text":
            self.write(summary_text(result.stats, outputs))

    def _tick(self, crawler: Crawler | Shards, rate: Rate, first: bool = False) -> None:
        pages_per_s = rate.update(crawler.stats.pages - crawler.earlier_pages)
        if not first:
            counts = crawler.counts
            crawler.log.info(
                "progress",
                pages=crawler.stats.pages,
                items=crawler.stats.items,
                errors=crawler.stats.errors,
                pages_per_s=round(pages_per_s, 1),
                queue=max(0, counts.pending - crawler.in_flight),
                in_flight=crawler.in_flight,
                hosts=crawler.busy_hosts,
            )
        self._handle = asyncio.get_running_loop().call_later(self._every_s, self._tick, crawler, rate)


class Live:
    """One line on the terminal that is drawn anew four times a second, below the log lines."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(stderr=True, highlight=False)
        # What is printed to a file or a pipe is to get there; on the terminal it is put above the line.
        on_terminal = sys.stdout.isatty()
        self._live = RichLive(console=self._console, auto_refresh=False, transient=True, redirect_stdout=on_terminal)
        self._handle: asyncio.TimerHandle | None = None
        self._began = time.monotonic()

    def begin(self, crawler: Crawler | Shards) -> None:
        """Start the display."""
        self._began = time.monotonic()
        self._live.start()
        self._tick(crawler, Rate())

    def write(self, line: str) -> None:
        """Print a log line above the display."""
        style = "yellow" if " warning " in line[:18] else "red" if " error " in line[:18] else None
        with suppress(OSError):
            self._console.print(line, markup=False, style=style, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print it above the display."""
        self.write(text)

    def pause(self) -> None:
        """Take the display away."""
        if self._handle is not None:
            self._handle.cancel()
        self._live.stop()

    def end(self, result: Result, outputs: list[str]) -> None:
        """Print the summary."""
        self._console.print(summary_text(result.stats, outputs), markup=False)

    def _tick(self, crawler: Crawler | Shards, rate: Rate) -> None:
        self._live.update(self._line(crawler, rate.update(crawler.stats.pages - crawler.earlier_pages)), refresh=True)
        self._handle = asyncio.get_running_loop().call_later(_REFRESH_S, self._tick, crawler, rate)

    def _line(self, crawler: Crawler | Shards, pages_per_s: float) -> Any:
        from rich.text import Text

        stats, in_flight = crawler.stats, crawler.in_flight
        fields = [
            ("pages", f"{stats.pages:,}", "bold green"),
            ("items", f"{stats.items:,}", "bold green"),
            ("errors", f"{stats.errors:,}", "bold red" if stats.errors else "bold"),
            ("pages/s", f"{pages_per_s:,.0f}", "bold cyan"),
            ("queue", f"{max(0, crawler.counts.pending - in_flight):,}", "bold"),
            ("in\N{NO-BREAK SPACE}flight", str(in_flight), "bold"),
            ("hosts", str(crawler.busy_hosts), "bold"),
        ]
        seconds = int(time.monotonic() - self._began)
        # On a narrow terminal it takes two lines rather than lose a figure.
        line = Text().append(f"{crawler.spider.name} ", style="bold magenta")
        line.append(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}", style="dim")
        for name, value, style in fields:
            line.append("  ").append(f"{name}\N{NO-BREAK SPACE}", style="dim").append(value, style=style)
        return line


def summary_text(stats: dict[str, Any], outputs: list[str]) -> str:
    """Return the summary for people, a few aligned lines."""
    head = f"{stats['spider']}: {stats['reason']} in {stats['elapsed_s']:,.1f} s"
    rows = [
        ("pages", f"{stats['pages']:,}", f"{stats['pages_per_s']:,.0f} pages/s, {_size(stats['bytes'])}"),
        ("items", f"{stats['items']:,}", f"{stats['dropped']:,} dropped" if stats["dropped"] else ""),
        ("requests", f"{stats['requests']:,}", _extra(stats, "retries", "redirects")),
        ("errors", f"{stats['errors']:,}", ""),
        ("failures", "", _counted(stats["error_classes"])),
        ("statuses", "", _counted(stats["statuses"])),
        ("cache", "", _counted(stats["cache"])),
        ("queue", f"{stats['pending']:,}", _queue(stats)),
        ("refused", "", _counted(stats["refused"])),
        ("memory", f"{stats['peak_rss_mb']:,.0f} MB", "at most"),
    ]
    lines = [head]
    for name, value, detail in rows:
        if not value and not detail:
            continue
        lines.append(f"  {name:<9} {value:>10}  {detail}".rstrip() if value else f"  {name:<9} {detail}".rstrip())
    lines += [f"  written   {name}" for name in outputs if name != "-"]
    return "\n".join(lines)


def _queue(stats: dict[str, Any]) -> str:
    parts = f"waiting of {stats['seeded']:,} taken in: {stats['done']:,} done, {stats['failed']:,} failed"
    left = _extra(stats, "filtered", "out_of_scope").replace("filtered", "seen before").replace("_", " ")
    return f"{parts} ({left})" if left else parts


def _extra(stats: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{stats[name]:,} {name}" for name in names if stats[name])


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
