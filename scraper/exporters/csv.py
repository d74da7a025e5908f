"""Comma-separated values (RFC 4180) with a header line; columns are the first item's keys."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec

from scraper.exporters.files import FileExporter
from scraper.exporters.jsonl import encode as as_json


class CsvExporter(FileExporter):
    """Writes items as CSV. A file that is appended to keeps its own header; keys that are no column are left out."""

    def __init__(self, name: str, *, replace: bool = False) -> None:
        super().__init__(name, replace=replace)
        self._columns: list[str] | None = None

    async def open(self) -> None:
        """Open the file and read the header it has."""
        await super().open()
        if self._length:
            with Path(self.name).open(newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file), None)

    def encode(self, item: Any) -> bytes:
        """Return the item as one row, and the header before the first."""
        fields = msgspec.json.decode(as_json(item))
        rows = []
        if self._columns is None:
            self._columns = list(fields)
            rows.append(self._columns)
        rows.append([_cell(fields.get(column)) for column in self._columns])
        text = StringIO()
        csv.writer(text).writerows(rows)
        return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
