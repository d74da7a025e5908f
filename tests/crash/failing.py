"""Runs ``scrape`` in forks of itself, if asked so until it dies at a boundary of a commit: a script, started by ``Forks``.

It has everything imported before it forks, so that a run takes a tenth of a second. Each line it reads is a JSON object:
``argv``, ``cwd``, the files ``out`` and ``err``, the limit ``max_file``, the ``kind`` of boundary and its number ``at``.
For each it writes two lines: the process, and how that ended. The parts that die take the places of the real ones in
the registry, and only there.
"""

from __future__ import annotations

import gc
import os
import resource
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

    async def flush(self, *, sync: bool = False, is_part: bool = False) -> int:
        """Flush, with boundaries around and inside."""
        boundary("before a flush")
        length = await super().flush(sync=sync, is_part=is_part)
        boundary("after a flush")
        return length

    def _append(self, output: int, data: bytes) -> None:
        for kind, part in (("after a note", 0), ("after half of a flush", len(data) // 2)):
            if (kind, passed[kind] + 1) == wanted and self._trail is not None:
                self._trail.note(self._own, os.fstat(output).st_size, data)
                os.write(output, data[:part])
            boundary(kind)
        super()._append(output, data)

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


def run(order: dict[str, Any]) -> None:
    """Run ``scrape`` as ordered, in this process, and exit."""
    global wanted
    wanted = order["kind"], order["at"]
    if order["kind"]:
        registry.EXPORTERS[".jsonl"] = "__main__:DyingExporter"
        registry.FRONTIERS["sqlite"] = "__main__:DyingFrontier"
    if order["max_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["max_file"], order["max_file"]))
    os.chdir(order["cwd"])
    for number, path in enumerate((os.devnull, order["out"], order["err"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["scrape", *order["argv"]]
    try:
        cli.main()
    except SystemExit as end:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(int(end.code or 0))  # a fork need not clear up what its parent had imported


def main() -> None:
    """Fork for each order on standard input, one after the other; say which process it is, and how it ended."""
    for late in ("scraper.crawler", "scraper.selector", "scraper.cli.progress", "scraper.cli.jobs", "scraper.jobs"):
        import_module(late)
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            run(msgspec.json.decode(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
