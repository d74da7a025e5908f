"""Appending to one file in large blocks, through aiofiles; or to standard output."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import IO, Any, cast

import aiofiles

from scraper.errors import OutputError

_COPY_BYTES = 2**20


class FileExporter:
    """One output file, written in whole records; the name "-" is standard output.

    ``replace`` empties the file with the first flush, not before: a run that never starts leaves it as it was.

    Formats subclass it with an ``encode`` of their own.
    """

    def __init__(self, name: str, *, replace: bool = False) -> None:
        self.name = name
        self._replace = replace
        self._blocks: list[bytes | IO[bytes]] = []
        self._file: Any = None
        self._length = 0
        self._is_broken = False
        self.buffered = 0

    @property
    def length(self) -> int:
        """Bytes of the output that hold, those in the buffer left out."""
        return self._length

    async def open(self, position: int | None = None) -> None:
        """Open the file: anew, or to go on at ``position``, where what lies behind it is cut off.

        A file that is appended to anew gets the end of its last line, should an earlier writer have left it without.
        """
        try:
            if self.name == "-":
                self._file = aiofiles.stdout_bytes
                return
            self._file = await aiofiles.open(self.name, "a+b", buffering=0)
            if position is not None:
                await self._go_on_at(position)
            elif not self._replace:
                await self._mend_end()
        except OSError as error:
            raise _refused(self.name, error) from None

    async def _go_on_at(self, position: int) -> None:
        found = await self._file.seek(0, os.SEEK_END)
        if found < position:
            await self._file.close()
            raise OutputError(
                f"{self.name} holds {found:,} bytes, but the run had written {position:,}: it was cut, moved or replaced; "
                "put it back to resume"
            )
        if position:
            await self._file.seek(position - 1)
            if await self._file.read(1) != b"\n":
                await self._file.close()
                raise OutputError(
                    f"{self.name} has no end of a line at byte {position:,}, up to which the run had written: it was "
                    "replaced; put the run's own file back to resume"
                )
        await self._file.truncate(position)
        self._replace = False
        self._length = position

    async def _mend_end(self) -> None:
        self._length = await self._file.seek(0, os.SEEK_END)
        if self._length:
            await self._file.seek(self._length - 1)
            if await self._file.read(1) != b"\n":
                self._length += await self._file.write(b"\n")

    def write(self, block: bytes) -> None:
        """Take whole records into the buffer."""
        self._blocks.append(block)
        self.buffered += len(block)

    def write_file(self, file: IO[bytes]) -> None:
        """Take the whole records that a temporary file holds."""
        self._blocks.append(file)

    async def flush(self, *, sync: bool = False) -> int:
        """Write what was taken before the call; return the file's length."""
        blocks, self._blocks = self._blocks, []
        length = self._length
        try:
            if blocks and self.name != "-" and not os.fstat(self._file.fileno()).st_nlink:
                raise OSError(0, "it was deleted while the run wrote to it")
            if self._replace and self.name != "-":
                await self._file.truncate(0)
                self._replace = False
            for is_data, run in groupby(blocks, lambda block: isinstance(block, bytes)):
                if is_data:
                    data = b"".join(cast("Iterable[bytes]", run))
                    await self._write_all(data)
                    self.buffered -= len(data)
                else:
                    for file in cast("Iterable[IO[bytes]]", run):
                        await self._copy(file)
            if sync and blocks and self.name != "-":
                await asyncio.to_thread(os.fsync, self._file.fileno())
        except OSError as error:
            self._is_broken = True
            await self._cut_to(length)
            raise _refused(self.name, error) from None
        return self._length

    async def _cut_to(self, length: int) -> None:
        """Leave no half record behind a flush that failed."""
        if self.name != "-" and not self._replace:
            with suppress(OSError):
                await self._file.truncate(length)
                self._length = length

    async def close(self) -> None:
        """Flush and close."""
        if self._file is None:
            return
        try:
            if self._blocks and not self._is_broken:
                await self.flush()
        finally:
            if self.name != "-":
                await self._file.close()
            self._file = None

    async def _copy(self, file: IO[bytes]) -> None:
        with file:
            file.seek(0)
            while block := await asyncio.to_thread(file.read, _COPY_BYTES):
                await self._write_all(block)

    async def _write_all(self, data: bytes) -> None:
        self._length += len(data)
        if self.name == "-":
            await self._file.write(data)
            await self._file.flush()
            return
        view = memoryview(data)
        while view:
            # An unbuffered write may take a part only (a disk nearly full): the rest is tried until an error says why.
            view = view[await self._file.write(view) :]


def check_writable(name: str) -> None:
    """Raise OutputError where the file cannot be opened for writing; leaves nothing behind and changes nothing."""
    if name == "-":
        return
    path = Path(name)
    try:
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise _refused(name, error) from None


def _refused(name: str, error: OSError) -> OutputError:
    where = "standard output" if name == "-" else name
    hint = ""
    if isinstance(error, FileNotFoundError):
        hint = f"; there is no folder {Path(name).parent}"
    return OutputError(f"cannot write to {where}: {error.strerror or error}{hint}")
