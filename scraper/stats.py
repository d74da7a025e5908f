"""What is counted during a run, and the summary made of it."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from scraper.contracts import Counts
from scraper.errors import text_of

_KEPT = ("requests", "pages", "items", "dropped", "errors", "retries", "redirects", "bytes")


class Stats:
    """The counts of a run: the framework's as attributes, the spider's own through ``inc`` and ``set``.

    ``requests`` counts fetches begun, retries and redirects included; ``pages`` responses handed to callbacks; ``items``
    what reached the outputs; ``errors`` failed requests that no errback took, and exceptions raised by callbacks and
    pipelines; ``bytes`` the decompressed bodies. ``statuses`` and ``error_classes`` count by kind; ``cache`` the cache's
    "hits", "misses", and what a server "revalidated"; ``refused`` what was left alone, by the bound that it would have passed.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.pages = 0
        self.items = 0
        self.dropped = 0
        self.errors = 0
        self.retries = 0
        self.redirects = 0
        self.bytes = 0
        self.refused: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.error_classes: Counter[str] = Counter()
        self.cache: Counter[str] = Counter()
        self.custom: dict[str, Any] = {}
        self.unsettled_pages = 0
        """Of ``pages``, those that would come again after a crash; so with ``unsettled_items``."""
        self.unsettled_items = 0

    def changes(self) -> dict[str, Any]:
        """Return all counts, but for what a resumed run will count again: see ``contracts.Stateful``."""
        kept = {name: getattr(self, name) for name in _KEPT}
        kept["pages"] -= self.unsettled_pages
        kept["items"] -= self.unsettled_items
        kept["statuses"] = {str(status): n for status, n in self.statuses.items()}
        kept["error_classes"] = dict(self.error_classes)
        kept["cache"] = dict(self.cache)
        kept["refused"] = dict(self.refused)
        kept["custom"] = dict(self.custom)
        return {"stats": kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting where an earlier process was."""
        kept = state.get("stats", {})
        for name in _KEPT:
            setattr(self, name, kept.get(name, 0))
        self.statuses.update({int(status): n for status, n in kept.get("statuses", {}).items()})
        self.error_classes.update(kept.get("error_classes", {}))
        self.cache.update(kept.get("cache", {}))
        self.refused.update(kept.get("refused", {}))
        self.custom.update(kept.get("custom", {}))

    def inc(self, name: str, by: float = 1) -> None:
        """Add to a count of the spider's own."""
        if name not in self.custom:
            name = text_of(name)
        self.custom[name] = self.custom.get(name, 0) + by

    def set(self, name: str, value: Any) -> None:
        """Set a value of the spider's own: a number, text, list or dict. Raises TypeError where it cannot be stored."""
        value = text_of(value) if isinstance(value, str) else value
        try:
            msgspec.msgpack.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            raise TypeError(
                f"stats.set({name!r}): a number, text, list or dict is expected that the run's state can hold, not "
                f"{text_of(value)[:100]} ({type(value).__name__})"
            ) from None
        self.custom[text_of(name)] = value

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value of the spider's own."""
        return self.custom.get(name, default)

    def summary(self, spider: str, reason: str, elapsed_s: float, counts: Counts) -> dict[str, Any]:
        """Return the run's summary as one flat object for people and ``--stats``; times in seconds, sizes as named."""
        return {
            "spider": spider,
            "reason": reason,
            "requests": self.requests,
            "pages": self.pages,
            "items": self.items,
            "dropped": self.dropped,
            "errors": self.errors,
            "retries": self.retries,
            "redirects": self.redirects,
            "bytes": self.bytes,
            "elapsed_s": round(elapsed_s, 3),
            "pages_per_s": round(self.pages / elapsed_s, 1) if elapsed_s > 0 else 0.0,
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "error_classes": dict(sorted(self.error_classes.items())),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "seeded": counts.seeded,
            "done": counts.done,
            "failed": counts.failed,
            "pending": counts.pending,
            "filtered": counts.filtered,
            "out_of_scope": self.refused.total(),
            "refused": dict(sorted(self.refused.items())),
            "cache": dict(sorted(self.cache.items())),
            "custom": self.custom,
        }


def peak_rss_mb() -> float:
    """Return the most memory this process has held, in MB (10^6 bytes)."""
    try:
        # getrusage's figure is at least what the process that started this one held, where that forked.
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
