"""Items whose key was seen are dropped, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from pipelines.duplicates import DropDuplicates
from scraper import DropItem, Spider


@dataclass
class DataclassItem:
    upc: str


@attrs.define
class AttrsItem:
    upc: str


class PydanticItem(pydantic.BaseModel):
    upc: str


class StructItem(msgspec.Struct, frozen=True):
    upc: str


def kept(pipeline: DropDuplicates, items: list[Any]) -> list[Any]:
    """Send items through the pipeline and return those it lets pass."""
    passed = []
    for item in items:
        try:
            passed.append(pipeline.process_item(item, Spider("test")))
        except DropItem:
            continue
    return passed


@pytest.mark.parametrize(
    ("key", "items", "left"),
    [
        ("id", [{"id": 1}, {"id": 2}, {"id": 1}], [0, 1]),
        ("id", [{"id": 1, "a": 1}, {"id": 1, "a": 2}], [0]),
        ("id", [{"id": 1}, {"id": "1"}], [0, 1]),
        ("id", [{"id": ["a", "b"]}, {"id": ["a", "b"]}, {"id": "ab"}], [0, 2]),
        ("id", [{"id": {"x": 1, "y": 2}}, {"id": {"y": 2, "x": 1}}], [0]),
        ("id", [{"id": ""}, {"id": ""}], [0]),
        ("id", [{"id": 0}, {"id": 0}, {"id": False}], [0, 2]),
        ("id", [{}, {}, {"id": None}], [0, 1, 2]),
        (["a", "b"], [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 2}], [0, 1]),
        (["a", "b"], [{"a": "xy", "b": "z"}, {"a": "x", "b": "yz"}], [0, 1]),
        (["a", "b"], [{"a": 1}, {"b": 1}, {"a": 1}], [0, 1]),
        (["a", "b"], [{"c": 1}, {"c": 1}], [0, 1]),
    ],
)
def test_keeps_the_first_item_of_each_key(key: str | list[str], items: list[Any], left: list[int]) -> None:
    """The first item of each key passes; an item without any of the key's fields always does."""
    passed = kept(DropDuplicates(key), items)
    assert [id(item) for item in passed] == [id(items[place]) for place in left]


@pytest.mark.parametrize("kind", [DataclassItem, AttrsItem, PydanticItem, StructItem])
def test_takes_items_of_every_kind(kind: Callable[..., Any]) -> None:
    """Items of classes are told apart by the field of that name, as dicts are."""
    items = [kind(upc="a"), kind(upc="b"), kind(upc="a")]
    assert kept(DropDuplicates("upc"), items) == items[:2]


def test_keys_of_different_classes_are_one_set() -> None:
    """A dict and a dataclass with the same key are duplicates."""
    assert len(kept(DropDuplicates("upc"), [{"upc": "a"}, DataclassItem("a")])) == 1


def test_reason_names_the_key() -> None:
    """The reason of a drop shows each field of the key with its value."""
    pipeline = DropDuplicates(["shop", "upc"])
    pipeline.process_item({"shop": "north", "upc": 7}, Spider("test"))
    with pytest.raises(DropItem) as dropped:
        pipeline.process_item({"shop": "north", "upc": 7}, Spider("test"))
    assert str(dropped.value) == "duplicate: shop 'north', upc 7"


def test_pipelines_do_not_share_what_they_saw() -> None:
    """A second run, with a pipeline of its own, starts with nothing seen."""
    assert kept(DropDuplicates("id"), [{"id": 1}]) == kept(DropDuplicates("id"), [{"id": 1}]) == [{"id": 1}]


def test_refuses_a_key_of_no_fields() -> None:
    """An empty key, by which every item would be the same, is refused when the pipeline is made."""
    with pytest.raises(ValueError, match="no field"):
        DropDuplicates([])
