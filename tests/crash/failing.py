"""Runs ``scrape`` and kills it at a given boundary of a commit: a script of its own, started by ``test_failpoints``.

It has everything imported and forks for each run, so that a run takes a tenth of a second. Each line it reads is a JSON
object: ``argv``, the ``kind`` of boundary and its number ``at``; each line it writes is what ``waitpid`` said. The parts
that die take the places of the real ones in the registry.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from scraper import cli, registry
from scraper.contracts import Checkpoint
from scraper.exporters.jsonl import JsonlExporter
from scraper.frontiers.sqlite import SqliteFrontier
from scraper.frontiers.store import Batch, Store

wanted: tuple[str, int] = ("", 0)
passed: Counter[str] = Counter()


def boundary(kind: str) -> None:
    """Die here if this is the boundary that is wanted."""
    passed[kind] += 1
    if (kind, passed[kind]) == wanted:
        os.kill(os.getpid(), signal.SIGKILL)


class DyingExporter(JsonlExporter):
    """Writes JSON Lines, and dies before, in or after a flush."""

    def __init__(self, name: str, *, replace: bool = False) -> None:
        super().__init__(name, replace=replace)
        self._taken = b""

    def write(self, block: bytes) -> None:
        """Take whole records, and remember them."""
        super().write(block)
        self._taken += block

    async def flush(self, *, sync: bool = False) -> int:
        """Flush, with boundaries around and inside."""
        boundary("before a flush")
        kind = "after half of a flush"
        if self._taken and (kind, passed[kind] + 1) == wanted:
            with Path(self.name).open("ab") as file:
                file.write(self._taken[: len(self._taken) // 2])
        if self._taken:
            boundary(kind)
        self._taken = b""
        length = await super().flush(sync=sync)
        boundary("after a flush")
        return length

    async def close(self) -> None:
        """Close, and die."""
        await super().close()
        boundary("closing an output")


class DyingStore(Store):
    """A file of state that dies around the statement COMMIT."""

    def apply(self, batch: Batch) -> list[bool]:
        """Apply a batch within the transaction, and die."""
        verdict = super().apply(batch)
        boundary("after a batch")
        return verdict

    def commit(self, meta: Mapping[str, Any]) -> None:
        """Commit, and die before or after."""
        boundary("before COMMIT")
        super().commit(meta)
        boundary("after COMMIT")


class DyingFrontier(SqliteFrontier):
    """The durable frontier on a file that dies."""

    def __init__(self, *arguments: Any, path: Path, durability: Any, **options: Any) -> None:
        super().__init__(*arguments, path=path, durability=durability, **options)
        self._store = DyingStore(path, durability)

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Commit, and die before."""
        boundary("before a commit")
        await super().commit(checkpoint)

    async def close(self) -> None:
        """Close, and die."""
        await super().close()
        boundary("closing the frontier")


def main() -> None:
    """Run what is asked for on standard input, one after the other."""
    global wanted
    for late in ("scraper.crawler", "scraper.selector", "scraper.cli.progress"):
        import_module(late)
    registry.EXPORTERS[".jsonl"] = "__main__:DyingExporter"
    registry.FRONTIERS["sqlite"] = "__main__:DyingFrontier"
    for line in sys.stdin:
        order = msgspec.json.decode(line)
        pid = os.fork()
        if not pid:
            wanted = order["kind"], order["at"]
            sys.argv = ["scrape", *order["argv"]]
            os.dup2(2, 1)
            try:
                cli.main()
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(int(end.code or 0))  # a fork need not clear up what its parent had imported
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)


if __name__ == "__main__":
    main()
