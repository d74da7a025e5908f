"""What a run counts and how it sums up."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scraper.contracts import Counts
from scraper.stats import Stats, peak_rss_mb

PROMISED = {
    *("spider", "reason", "requests", "pages", "items", "dropped", "errors", "retries", "bytes", "elapsed_s"),
    *("pages_per_s", "statuses", "peak_rss_mb", "seeded", "done", "failed", "pending"),
}


def test_the_summary_has_what_is_promised() -> None:
    """The summary is one JSON object with at least the documented keys, the frontier's counts among them."""
    stats = Stats()
    stats.pages, stats.statuses[404], stats.statuses[200] = 10, 1, 9
    stats.error_classes["HttpError"] += 1
    summary = json.loads(json.dumps(stats.summary("books", "finished", 4.00049, Counts(5, 2, 1, 2, 7))))
    assert set(summary) >= PROMISED
    assert (summary["spider"], summary["reason"], summary["elapsed_s"]) == ("books", "finished", 4.0)
    assert (summary["pages"], summary["pages_per_s"]) == (10, 2.5)
    assert list(summary["statuses"].items()) == [("200", 9), ("404", 1)]
    assert summary["error_classes"] == {"HttpError": 1}
    assert [summary[name] for name in ("seeded", "done", "failed", "pending", "filtered")] == [5, 2, 1, 2, 7]


def test_a_run_of_no_time() -> None:
    """A run that ended at once has no speed, and no division by zero."""
    assert Stats().summary("s", "r", 0.0, Counts())["pages_per_s"] == 0.0


def test_a_spiders_own_counts() -> None:
    """inc adds, set sets, get reads; all of it is in the summary."""
    stats = Stats()
    stats.inc("seen")
    stats.inc("seen", 2)
    stats.inc("weight", 0.5)
    stats.set("best", "x")
    assert (stats.get("seen"), stats.get("none"), stats.get("none", 0)) == (3, None, 0)
    assert stats.summary("s", "r", 1, Counts())["custom"] == {"seen": 3, "weight": 0.5, "best": "x"}


def test_two_runs_count_apart() -> None:
    """Nothing counted in one run shows in another."""
    one, other = Stats(), Stats()
    one.inc("x")
    one.statuses[200] += 1
    assert (other.get("x"), other.statuses) == (None, {})


def test_peak_memory_is_in_megabytes() -> None:
    """A Python process holds some megabytes, whatever unit the system counts in."""
    assert 5 < peak_rss_mb() < 100_000


def test_counts_last_over_a_crash() -> None:
    """What one process counted, as JSON, another goes on from."""
    one, other = Stats(), Stats()
    one.refused.update({"depth": 2, "queries": 1})
    one.pages, one.items, one.statuses[200], one.error_classes["DnsError"] = 3, 5, 2, 1
    one.cache["hits"] = 4
    one.inc("seen", 7)
    state = json.loads(json.dumps(one.changes()))
    other.restore({})
    assert other.changes() == Stats().changes()
    other.restore(state)
    other.pages += 1
    other.statuses[200] += 1
    other.inc("seen")
    assert (other.pages, other.items, other.statuses, other.get("seen")) == (4, 5, {200: 3}, 8)
    assert (other.error_classes, other.cache) == ({"DnsError": 1}, {"hits": 4})
    summary = other.summary("s", "r", 1, Counts())
    assert (summary["refused"], summary["out_of_scope"]) == ({"depth": 2, "queries": 1}, 3)


def test_memory_is_this_processs_own() -> None:
    """What the process that started this one holds is not counted."""
    parent = (
        "import subprocess, sys; held = b'x' * 400_000_000\n"
        "subprocess.run([sys.executable, '-c', 'from scraper.stats import peak_rss_mb; print(peak_rss_mb())'], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, check=True)
    assert 5 < float(done.stdout) < 300


def test_values_that_the_state_cannot_hold() -> None:
    """They are refused where they are set; odd text is made fit."""
    stats = Stats()
    for value in (object(), 2**70, [object()]):
        with pytest.raises(TypeError, match=r"stats.set\('last'\): a number, text, list or dict is expected"):
            stats.set("last", value)
    stats.set("title", "a \ud800")
    stats.inc("kind/\ud800")
    stats.inc("kind/\ud800")
    assert stats.custom == {"title": "a \\ud800", "kind/\\ud800": 2}


def test_what_comes_again_is_not_kept() -> None:
    """Pages and items of pages that are not settled count, but a resumed run counts them when they come again."""
    stats = Stats()
    stats.pages, stats.unsettled_pages, stats.items, stats.unsettled_items = 10, 3, 60, 20
    kept = stats.changes()["stats"]
    assert (kept["pages"], kept["items"]) == (7, 40)
