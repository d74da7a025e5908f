"""Appending to one file in large blocks, through aiofiles; or to standard output."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
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
        self.buffered = 0

    async def open(self) -> None:
        """Open the file, mending a last line that an earlier writer left without its end."""
        try:
            if self.name == "-":
                self._file = aiofiles.stdout_bytes
                return
            self._file = await aiofiles.open(self.name, "a+b", buffering=0)
            if self._replace:
                return
            self._length = await self._file.seek(0, os.SEEK_END)
            if self._length:
                await self._file.seek(self._length - 1)
                if await self._file.read(1) != b"\n":
                    self._length += await self._file.write(b"\n")
        except OSError as error:
            raise _refused(self.name, error) from None

    def write(self, block: bytes) -> None:
        """Take whole records into the buffer."""
        self._blocks.append(block)
        self.buffered += len(block)

    def write_file(self, file: IO[bytes]) -> None:
        """Take the whole records that a temporary file holds."""
        self._blocks.append(file)

    async def flush(self) -> int:
        """Write what was taken before the call; return the file's length."""
        blocks, self._blocks = self._blocks, []
        try:
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
        except OSError as error:
            raise _refused(self.name, error) from None
        return self._length

    async def close(self) -> None:
        """Flush and close."""
        if self._file is None:
            return
        try:
            if self._blocks:
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
    existed = path.exists()
    try:
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
