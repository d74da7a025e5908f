"""Price texts become Decimals, and what is no price in the right currency is dropped with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from pipelines.prices import PriceToDecimal
from scraper import DropItem, Spider


@dataclass
class DataclassItem:
    price: str | Decimal | None


@dataclass(frozen=True, slots=True)
class FrozenDataclassItem:
    price: str | Decimal | None


@attrs.define
class AttrsItem:
    price: str | Decimal | None


class PydanticItem(pydantic.BaseModel):
    price: str | Decimal | None


class StructItem(msgspec.Struct):
    price: str | Decimal | None


class FrozenStructItem(msgspec.Struct, frozen=True):
    price: str | Decimal | None


KINDS: list[Callable[..., Any]] = [
    DataclassItem,
    FrozenDataclassItem,
    AttrsItem,
    PydanticItem,
    StructItem,
    FrozenStructItem,
]


def price_of(text: Any, currency: str = "GBP") -> Decimal:
    """Send one price through the pipeline."""
    item = PriceToDecimal(currency).process_item({"price": text}, Spider("test"))
    price = item["price"]
    assert isinstance(price, Decimal)
    return price


@pytest.mark.parametrize(
    ("text", "currency", "price"),
    [
        ("£51.77", "GBP", "51.77"),
        ("£1,234.50", "GBP", "1234.50"),
        ("1.234,50 €", "EUR", "1234.50"),
        ("1 234,50 €", "EUR", "1234.50"),
        ("1\u202f234\u202f567,5\u00a0€", "EUR", "1234567.5"),
        ("CHF 1'234.50", "CHF", "1234.50"),
        ("Fr. 12.50", "CHF", "12.50"),
        ("USD 12", "USD", "12"),
        ("12 usd", "usd", "12"),
        ("$12.00", "USD", "12.00"),
        ("$12.00", "CAD", "12.00"),
        ("US$ 12.00", "USD", "12.00"),
        ("US$12.00 USD", "USD", "12.00"),
        ("¥1,200", "JPY", "1200"),
        ("49,90 zł", "PLN", "49.90"),
        ("  51.77\n", "GBP", "51.77"),
        ("£.99", "GBP", "0.99"),
        ("£0", "GBP", "0"),
        ("1.234", "GBP", "1234"),
        ("12.345.678", "GBP", "12345678"),
        ("0.125", "GBP", "0.125"),
        ("12,5", "EUR", "12.5"),
        ("1234567.89", "GBP", "1234567.89"),
    ],
)
def test_reads_price_text(text: str, currency: str, price: str) -> None:
    """A price is read exactly, whichever way its number and its currency are written."""
    assert str(price_of(text, currency)) == price


@pytest.mark.parametrize(("value", "price"), [(12, "12"), (0.1, "0.1"), (Decimal("5.50"), "5.50"), (0, "0")])
def test_keeps_numbers(value: Any, price: str) -> None:
    """A number is taken for a price in the right currency, and zero for a price."""
    assert str(price_of(value)) == price


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "price is missing"),
        ("", "price is missing"),
        ("  ", "price '  ' is not a price"),
        ("call us", "price 'call us' is not a price"),
        ("£", "price '£' is not a price"),
        ("£1 - £2", "price '£1 - £2' is not a price"),
        ("1.2.3", "price '1.2.3' is not a price"),
        ("1,234,50", "price '1,234,50' is not a price"),
        ("12 stars", "price '12 stars' is not a price"),
        ("£5 each", "price '£5 each' is not a price"),
        (True, "price True is not a price"),
        (["£5"], "price ['£5'] is not a price"),
        (float("nan"), "price nan is not a price"),
        (float("inf"), "price inf is not a price"),
        (-1, "price -1 is negative"),
        ("-£5.00", "price '-£5.00' is negative"),
        ("£-5.00", "price '£-5.00' is negative"),
        ("£\u22125.00", "price '£\u22125.00' is negative"),
        ("€5.00", "price '€5.00' is in EUR, not in GBP"),
        ("5.00 EUR", "price '5.00 EUR' is in EUR, not in GBP"),
        ("$5.00", "price '$5.00' is in USD, not in GBP"),
        ("£5.00 USD", "price '£5.00 USD' is in USD, not in GBP"),
    ],
)
def test_drops_what_is_no_price(value: Any, reason: str) -> None:
    """An item without a usable price is dropped, and the reason names the field and what stood in it."""
    with pytest.raises(DropItem) as dropped:
        price_of(value)
    assert str(dropped.value) == reason


def test_drops_item_without_the_field() -> None:
    """A field that is not there counts as a missing price."""
    with pytest.raises(DropItem, match="price is missing"):
        PriceToDecimal().process_item({"title": "A book"}, Spider("test"))


def test_reads_all_fields_and_leaves_the_others() -> None:
    """Each of several fields becomes a Decimal, in its place, and nothing else changes."""
    item = {"price": "£5", "title": "£9", "tax": "£1"}
    out = PriceToDecimal(fields=["price", "tax"]).process_item(item, Spider("test"))
    assert list(out.items()) == [("price", Decimal(5)), ("title", "£9"), ("tax", Decimal(1))]


def test_item_with_one_bad_price_is_left_as_it_was() -> None:
    """A dropped item has none of its prices changed."""
    item = {"price": "£5", "tax": "none"}
    with pytest.raises(DropItem):
        PriceToDecimal(fields=["price", "tax"]).process_item(item, Spider("test"))
    assert item == {"price": "£5", "tax": "none"}


@pytest.mark.parametrize("kind", KINDS)
def test_takes_items_of_every_kind(kind: Callable[..., Any]) -> None:
    """Items of classes, frozen ones too, come out as the same class with the price changed."""
    out = PriceToDecimal().process_item(kind(price="£51.77"), Spider("test"))
    assert (type(out), out.price) == (kind, Decimal("51.77"))


@pytest.mark.parametrize("kind", KINDS)
def test_drops_items_of_every_kind(kind: Callable[..., Any]) -> None:
    """An item of a class whose price is None is dropped like a dict without one."""
    with pytest.raises(DropItem, match="price is missing"):
        PriceToDecimal().process_item(kind(price=None), Spider("test"))


@pytest.mark.parametrize("currency", ["", "£", "pounds", "G8P"])
def test_refuses_a_currency_that_is_no_code(currency: str) -> None:
    """A currency that no price could ever agree with is refused when the pipeline is made."""
    with pytest.raises(ValueError, match="ISO 4217"):
        PriceToDecimal(currency)
