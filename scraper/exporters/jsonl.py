"""JSON Lines: UTF-8, one object a line, keys in the item's order (https://jsonlines.org/)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from scraper.exporters.files import FileExporter
from scraper.http import plain

_PLAIN_TYPES = frozenset({str, int, float, bool, bytes, type(None)})
# Where HttpUrl, SecretStr and addresses are.
_SHOWN_AS_TEXT = frozenset({"pydantic.networks", "pydantic.types", "ipaddress"})
_SEPARATORS = {b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029", b"\xc2\x85": b"\\u0085"}


def _plain(value: Any) -> Any:
    """Return what msgspec cannot encode as something it can: pydantic's models and values, paths, mappings, a parser's text."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump()
    if hasattr(value, "__fspath__") or type(value).__module__ in _SHOWN_AS_TEXT:
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    try:
        return plain(value)
    except TypeError:
        raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON") from None


_encoder = msgspec.json.Encoder(enc_hook=_plain, decimal_format="string")


def encode(item: Any) -> bytes:
    """Return the item as one line. No character inside it ends a line, for any reader (U+2028, U+2029, U+0085 escaped).

    Raises TypeError or ValueError where a value cannot be written as JSON.
    """
    item = _in_order(item)
    try:
        line = _encoder.encode(item)
    except UnicodeEncodeError:
        line = _encoder.encode(_without_surrogates(msgspec.to_builtins(item, enc_hook=_plain)))
    # One byte is looked for in 0.1 µs, two in 1 µs for each kilobyte.
    if (b"\xe2" in line and b"\xe2\x80" in line) or (b"\x85" in line and b"\xc2\x85" in line):
        for separator, escape in _SEPARATORS.items():
            line = line.replace(separator, escape)
    return line + b"\n"


def _in_order(value: Any) -> Any:
    """Return attrs objects as dicts, also inside dicts and lists: msgspec sorts the fields of those with slots by name."""
    kind = type(value)
    if kind is dict:
        # Of plain values only, as most items are: 0.2 µs.
        if _PLAIN_TYPES.issuperset(map(type, value.values())):
            return value
        return {key: _in_order(inner) for key, inner in value.items()}
    if kind is list or kind is tuple:
        return value if _PLAIN_TYPES.issuperset(map(type, value)) else [_in_order(inner) for inner in value]
    fields = getattr(kind, "__attrs_attrs__", None)
    return value if fields is None else {field.name: _in_order(getattr(value, field.name)) for field in fields}


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
