"""JSON Lines: one object a line, whatever is in it, in the item's own order."""

from __future__ import annotations

import dataclasses
import enum
import json
import uuid
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from scraper.exporters.jsonl import JsonlExporter, encode


@dataclasses.dataclass
class DataclassItem:
    zeta: Any
    alpha: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class SlottedItem:
    zeta: Any
    alpha: Any = None


@attrs.define
class AttrsItem:
    zeta: Any
    alpha: Any = None


class PydanticItem(pydantic.BaseModel):
    zeta: Any
    alpha: Any = None


class StructItem(msgspec.Struct):
    zeta: Any
    alpha: Any = None


KINDS: list[Callable[..., Any]] = [dict, OrderedDict, DataclassItem, SlottedItem, AttrsItem, PydanticItem, StructItem]


class Colour(enum.Enum):
    RED = "red"


def decoded(item: Any) -> Any:
    """Encode an item, and read the line back as any reader would."""
    line = encode(item)
    assert line.endswith(b"\n")
    assert line.decode("utf-8").splitlines() == [line.decode("utf-8").removesuffix("\n")]
    return json.loads(line)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_items(kind: Callable[..., Any]) -> None:
    """All kinds of items become objects, their keys in the order of the class or of the dict."""
    assert encode(kind(zeta="ü", alpha=[1])) == '{"zeta":"ü","alpha":[1]}\n'.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_items_inside_items(kind: Callable[..., Any]) -> None:
    """An item may hold items of any kind."""
    for inner in KINDS:
        assert decoded(kind(zeta=inner(zeta=Decimal("1.0")), alpha=[inner(zeta=1)]))["zeta"]["zeta"] == "1.0"


@pytest.mark.parametrize("kind", KINDS)
def test_lone_surrogates(kind: Callable[..., Any]) -> None:
    """Half a character, which UTF-8 cannot hold, becomes U+FFFD; two halves that belong together become the character."""
    item = kind(zeta="a\ud800b", alpha=[{"\udc00": ("\ud83d\ude00", Decimal("1.5"), date(2024, 1, 2), {"\udfff"})}])
    assert decoded(item) == {"zeta": "a\ufffdb", "alpha": [{"\ufffd": ["😀", "1.5", "2024-01-02", ["\ufffd"]]}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\nb\r\nc",
        "\u2028\u2029\x85",
        "\x0b\x0c\x1c\x1d\x1e",
        "\0\x01\x7f",
        '"\\/',
        "“ünï” 中 😀",
        "\ufeff\ufffe\uffff",
        "\u202e",
        "é" * 1000 + "\u2028",
        "\\u2028",
    ],
)
def test_no_character_ends_a_line(text: str) -> None:
    """Text of any characters comes back as it was, as value and as key, and no reader takes one of them for a line's end."""
    assert decoded({text: text, "list": [text]}) == {text: text, "list": [text]}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (-(2**63), -(2**63)),
        (10**30, 10**30),
        (1.5, 1.5),
        (float("nan"), None),
        (float("inf"), None),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+3"), "1E+3"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2024, 1, 2, 3, 4, 5), "2024-01-02T03:04:05"),
        (datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2024-01-02T03:04:05.000006Z"),
        (time(3, 4), "03:04:00"),
        (timedelta(seconds=5), "PT5S"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pydantic.HttpUrl("http://a.example/"), "http://a.example/"),
        (pydantic.SecretStr("secret"), "**********"),
        (ip_address("127.0.0.1"), "127.0.0.1"),
        (Path("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        (b"ab", "YWI="),
        (type("Text", (str,), {})("a\u2028"), "a\u2028"),
        (type("Number", (int,), {})(7), 7),
        (type("Score", (float,), {})(0.5), 0.5),
        ((1, 2), [1, 2]),
        ({1}, [1]),
        (frozenset("a"), ["a"]),
        ({1: 2}, {"1": 2}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (MappingProxyType({"a": 1}), {"a": 1}),
    ],
)
def test_values(value: Any, written: Any) -> None:
    """Values that Python programs hold are written in the usual way; a number JSON has no word for is null."""
    assert decoded({"v": value}) == {"v": written}


def test_sets_keep_all_their_values() -> None:
    """A set becomes a list, in no order of its own."""
    assert sorted(decoded({"v": {3, 1, 2}})["v"]) == [1, 2, 3]


@pytest.mark.parametrize("value", [object(), 1j, lambda: 1, iter([1]), {None: 1}, {(1, 2): 3}, type])
def test_what_cannot_be_written(value: Any) -> None:
    """A value that JSON has no form for is a TypeError or ValueError, also deep inside."""
    with pytest.raises((TypeError, ValueError)):
        encode({"a": [{"b": value}]})


def test_a_circle_is_an_error() -> None:
    """An item that holds itself raises, and does not end the process."""
    item: dict[str, Any] = {}
    item["self"] = item
    with pytest.raises(RecursionError):
        encode(item)


def test_the_exporter_encodes_so() -> None:
    """The exporter's records are these lines."""
    assert JsonlExporter("x.jsonl").encode({"a": 1}) == b'{"a":1}\n'
