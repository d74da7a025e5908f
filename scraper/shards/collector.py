"""From the shards' parts to the outputs that the user named: what is committed is copied as it comes, each item once.

Each shard writes a part of its own and says, after each commit, how far it reaches. What has been copied is noted in one
file, how far the outputs reach beside how much of each part is in them. So a kill at any instant leaves outputs that reach
at least as far as the note says, and what goes beyond is cut off on resume.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from scraper import registry
from scraper.contracts import Exporter
from scraper.crawler import Output, make_exporters
from scraper.errors import OutputError, StateError, UsageError

_BLOCK_BYTES = 2**20
_PAUSE_S = 0.2  # between two copies, each of which takes about 1 ms of the processor however little it copies


class Note(Struct):
    """What the supervisor keeps: the outputs' lengths, how much of each part is in them, and the run as a whole."""

    outputs: dict[str, int] = {}
    parts: list[int] = []
    elapsed_s: float = 0.0
    broken: bool = False


class Collector:
    """Copies ``parts`` to ``outputs``. ``note`` is what an earlier process left; ``keep`` is called before more is noted,
    ``warn`` with what a person should know.

    With ``sync`` all of it has reached the disk before it is noted.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        parts: Sequence[Path],
        path: Path,
        *,
        csv_formulas: str,
        sync: bool,
        keep: Callable[[Note], None],
        warn: Callable[[str], None],
    ) -> None:
        self._exporters: list[Exporter] = make_exporters(outputs, csv_formulas, path.parent, warn)
        lines = registry.load(registry.EXPORTERS[".jsonl"])
        self._takes_lines = [type(exporter) is lines for exporter in self._exporters]
        self._parts = parts
        self._path = path
        self._sync = sync
        self._keep = keep
        self._reach = [0] * len(parts)
        self._grown = asyncio.Event()
        self._writing = asyncio.Lock()
        self.note = Note(parts=[0] * len(parts))

    async def open(self) -> None:
        """Open the outputs where an earlier process left them. Raises UsageError."""
        try:
            if self._path.exists():
                self.note = msgspec.json.decode(self._path.read_bytes(), type=Note)
            for exporter in self._exporters:
                await exporter.open(self.note.outputs.get(exporter.name))
            self._write_note()
        except (OutputError, StateError) as error:
            raise UsageError(str(error)) from None
        except (OSError, msgspec.DecodeError) as error:
            raise UsageError(f"{self._path}: the run's state cannot be used: {error}") from None
        self._reach = list(self.note.parts)

    @property
    def written(self) -> list[str]:
        """The names of the outputs that took something, or had nothing to take."""
        return [exporter.name for exporter in self._exporters if exporter.has_taken]

    def grew(self, number: int, length: int) -> None:
        """A part reaches so far. Raises StateError where it has become shorter than what was copied of it."""
        if length < self.note.parts[number]:
            raise StateError(
                f"{self._parts[number]} reaches to {length:,} bytes, but {self.note.parts[number]:,} were copied: the state "
                "is older than the output"
            )
        if length > self._reach[number]:
            self._reach[number] = length
            self._grown.set()

    async def run(self) -> None:
        """Copy until cancelled. Raises OutputError or StateError where that is not possible."""
        while True:
            await self._grown.wait()
            await asyncio.shield(asyncio.ensure_future(self.collect()))
            await asyncio.sleep(_PAUSE_S)

    async def collect(self) -> None:
        """Copy what is there, and note it. Raises OutputError or StateError."""
        async with self._writing:
            self._grown.clear()
            reach = list(self._reach)
            for number, path in enumerate(self._parts):
                if self._exporters and reach[number] > self.note.parts[number]:
                    await self._copy(path, self.note.parts[number], reach[number])
            for exporter in self._exporters:
                self.note.outputs[exporter.name] = await exporter.flush(sync=self._sync)
            self.note.parts = reach
            self._keep(self.note)
            self._write_note()

    async def close(self) -> None:
        """Close the outputs."""
        async with self._writing:
            for exporter in self._exporters:
                await exporter.close()

    async def _copy(self, path: Path, start: int, end: int) -> None:
        """Hand whole records to the exporters, a block at a time."""
        try:
            file = path.open("rb")
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}") from None
        with file:
            file.seek(start)
            rest = b""
            while start < end:
                data = await asyncio.to_thread(file.read, min(_BLOCK_BYTES, end - start))
                if not data:
                    raise StateError(f"{path} holds less than its shard wrote: it was cut or replaced")
                start += len(data)
                data = rest + data
                end_of_lines = data.rfind(b"\n") + 1
                rest = data[end_of_lines:]
                if end_of_lines:
                    await self._write(data[:end_of_lines])  # all of it, as a rule, which is no copy

    async def _write(self, block: bytes) -> None:
        for exporter, takes_lines in zip(self._exporters, self._takes_lines, strict=True):
            if takes_lines:
                exporter.write(block)
            else:
                exporter.write(b"".join([exporter.encode(_item(line)) for line in block.splitlines()]))
            if exporter.buffered >= _BLOCK_BYTES:
                await exporter.flush(is_part=True)

    def _write_note(self) -> None:
        self.note.outputs = {each.name: self.note.outputs.get(each.name, each.length) for each in self._exporters}
        draft = self._path.with_name(self._path.name + ".new")
        try:
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(self.note) + b"\n")
                if self._sync:
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            raise StateError(f"cannot write {self._path}: {error.strerror}") from None


def _item(line: bytes) -> Any:
    return msgspec.json.decode(line)
