"""Comma-separated values (RFC 4180) with a header line; columns are the first item's keys."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from scraper.errors import OutputError
from scraper.exporters.files import FileExporter
from scraper.exporters.jsonl import encode as as_json

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # by OWASP's page on CSV injection


class CsvExporter(FileExporter):
    """Writes items as CSV. A file that is appended to keeps its own header; keys that are no column are left out.

    The first keys to be left out are told to ``warn``.
    ``formulas="escape"`` puts an apostrophe before texts that a spreadsheet would take for a formula.
    """

    def __init__(
        self,
        name: str,
        *,
        replace: bool = False,
        trail: Path | None = None,
        formulas: Literal["keep", "escape"] = "keep",
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        super().__init__(name, replace=replace, trail=trail)
        self._escapes = formulas == "escape"
        self._columns: list[str] | None = None
        self._header = b""
        self._warn: Callable[[str], None] | None = warn
        self._is_foreign = False

    async def open(self, position: int | None = None) -> None:
        """Open the file and read the header it has."""
        await super().open(position)
        if self._length:
            try:
                with Path(self.name).open(newline="", encoding="utf-8-sig") as file:
                    self._columns = next(csv.reader(file), None) or None
                if self._escapes and self._columns:
                    self._columns = [_original(name) for name in self._columns]
                self._is_foreign = position is None and self._columns is not None
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                await self.close()
                raise OutputError(f"cannot append to {self.name}: its header cannot be read: {error}") from None

    def encode(self, item: Any) -> bytes:
        """Return the item as one row; the first item of all settles the columns.

        Raises OutputError where it has none of the columns that the file had before.
        """
        fields = msgspec.json.decode(as_json(item))
        if self._columns is None:
            self._columns = list(fields)
            self._header = _row([_harmless(name) for name in self._columns] if self._escapes else self._columns)
        elif self._warn is not None:
            self._look_at(fields, self._columns)
        values = [fields.get(column) for column in self._columns]
        if self._escapes:
            values = [_harmless(value) for value in values]
        return _row([_cell(value) for value in values])

    def _look_at(self, fields: Mapping[str, Any], columns: list[str]) -> None:
        left_out = [name for name in fields if name not in columns]
        if self._is_foreign and left_out and len(left_out) == len(fields):
            self._is_broken = True
            raise OutputError(
                f"cannot append to {self.name}: its columns are {', '.join(columns)}, the items' {', '.join(left_out)}"
            )
        self._is_foreign = False
        if left_out and self._warn is not None:
            self._warn(f"{self.name} has no column for {', '.join(left_out)}: left out")
            self._warn = None

    def write(self, block: bytes) -> None:
        """Take whole records into the buffer, the header before the first: pages are written in another order than encoded."""
        self._write_header()
        super().write(block)

    def write_file(self, file: IO[bytes]) -> None:
        """Take the whole records that a temporary file holds, the header before the first."""
        self._write_header()
        super().write_file(file)

    def _write_header(self) -> None:
        if self._header:
            header, self._header = self._header, b""
            super().write(header)


def _row(cells: list[str]) -> bytes:
    text = StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _original(name: str) -> str:
    return name[1:] if name.startswith("'") and name[1:].startswith(_FORMULA_STARTS) else name


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
