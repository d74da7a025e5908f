"""JSON Lines: UTF-8, one object a line, keys in the item's order (https://jsonlines.org/)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from scraper.exporters.files import FileExporter

_SEPARATORS = {b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029", b"\xc2\x85": b"\\u0085"}


def _plain(value: Any) -> Any:
    """Return what msgspec cannot encode by itself as something it can: pydantic models, paths, anything mapping-like."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump()
    if hasattr(value, "__fspath__"):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain, decimal_format="string")


def encode(item: Any) -> bytes:
    """Return the item as one line. No character inside it ends a line, for any reader (U+2028, U+2029, U+0085 escaped).

    Raises TypeError or ValueError where a value cannot be written as JSON.
    """
    try:
        line = _encoder.encode(item)
    except UnicodeEncodeError:
        line = _encoder.encode(_without_surrogates(msgspec.to_builtins(item, enc_hook=_plain)))
    if b"\xe2\x80" in line or b"\xc2\x85" in line:
        for separator, escape in _SEPARATORS.items():
            line = line.replace(separator, escape)
    return line + b"\n"


def _without_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which no UTF-8 can hold, by U+FFFD; a pair of them is the character it stands for."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(inner) for inner in value]
    return value


class JsonlExporter(FileExporter):
    """Writes items as JSON Lines."""

    def encode(self, item: Any) -> bytes:
        """Return the item as one line."""
        return encode(item)
