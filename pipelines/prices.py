"""Prices as numbers: "£1,234.50" becomes ``Decimal("1234.50")``.

In settings.toml::

    [[pipelines]]
    use = "pipelines.prices:PriceToDecimal"
    currency = "GBP"
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from itemadapter import ItemAdapter

from scraper import DropItem, Spider

_MARKS = {
    "£": ("GBP", "EGP", "FKP", "GIP", "SHP"),
    "€": ("EUR",),
    "$": ("USD", "AUD", "BRL", "CAD", "CLP", "COP", "HKD", "MXN", "NZD", "SGD", "TWD"),
    "US$": ("USD",),
    "A$": ("AUD",),
    "AU$": ("AUD",),
    "C$": ("CAD",),
    "CA$": ("CAD",),
    "HK$": ("HKD",),
    "NZ$": ("NZD",),
    "R$": ("BRL",),
    "S$": ("SGD",),
    "¥": ("JPY", "CNY"),
    "₹": ("INR",),
    "₩": ("KRW",),
    "₺": ("TRY",),
    "₽": ("RUB",),
    "zł": ("PLN",),
    "Kč": ("CZK",),
    "kr": ("DKK", "ISK", "NOK", "SEK"),
    "Fr": ("CHF",),
}
"""A currency's sign to the ISO 4217 codes that it may stand for."""

_CODE = re.compile(r"[A-Za-z]{3}")
_PRICE = re.compile(
    r"(?P<minus>[-\u2212]?)\s*(?P<before>[^\d\s.,+\u2212-]*(?:\.(?=\s))?)\s*(?P<inner_minus>[-\u2212]?)\s*"
    r"(?P<number>[.,]?\d(?:.*\d)?)\s*(?P<after>\D*)",
    re.DOTALL,
)
_GROUPED = re.compile(
    r"(?P<whole>[1-9]\d{0,2}(?P<mark>[.,'\u2019\s])\d{3}(?:(?P=mark)\d{3})*)(?:(?!(?P=mark))[.,](?P<part>\d+))?"
)
_PLAIN = re.compile(r"(?P<whole>\d*)(?:[.,](?P<part>\d+))?")


class PriceToDecimal:
    """Turns the price text of an item into a Decimal, and drops items whose price is missing, negative or no price.

    ``currency`` is the ISO 4217 code that prices are in: an item with another currency's sign or code is dropped, one
    without either is taken at its word. ``fields`` are the fields that hold prices.

    Both ways of writing numbers are read: "1,234.50" and "1.234,50", also with spaces or apostrophes between the
    thousands. A single mark before exactly three digits separates thousands, "1.234" is 1234, since prices do not have
    three decimals; after a zero it cannot, "0.125" is an eighth. Numbers are kept, as Decimals.
    """

    def __init__(self, currency: str = "GBP", fields: Sequence[str] = ("price",)) -> None:
        if not _CODE.fullmatch(currency):
            raise ValueError(f"currency = {currency!r} is not an ISO 4217 code such as GBP")
        self._currency = currency.upper()
        self._fields = (fields,) if isinstance(fields, str) else tuple(fields)

    def process_item(self, item: Any, spider: Spider) -> Any:
        """Return the item with its prices as Decimals. Raises DropItem."""
        return _with(item, {field: self._price(field, _get(item, field)) for field in self._fields})

    def _price(self, field: str, value: Any) -> Decimal:
        if value is None or value == "":
            raise DropItem(f"{field} is missing")
        if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            price = Decimal(str(value))
        else:
            price = self._read(field, value)
        if not price.is_finite():
            raise DropItem(f"{field} {value!r} is not a price")
        if price < 0:
            raise DropItem(f"{field} {value!r} is negative")
        return price

    def _read(self, field: str, value: Any) -> Decimal:
        found = _PRICE.fullmatch(value.strip()) if isinstance(value, str) else None
        amount = _amount(found["number"]) if found else None
        if found is None or amount is None:
            raise DropItem(f"{field} {value!r} is not a price")
        for mark in filter(None, (found[place].strip().rstrip(".") for place in ("before", "after"))):
            codes = _MARKS.get(mark) or ((mark.upper(),) if _CODE.fullmatch(mark) else ())
            if not codes:
                raise DropItem(f"{field} {value!r} is not a price")
            if self._currency not in codes:
                raise DropItem(f"{field} {value!r} is in {codes[0]}, not in {self._currency}")
        return -amount if found["minus"] or found["inner_minus"] else amount


def _amount(text: str) -> Decimal | None:
    found = _GROUPED.fullmatch(text) or _PLAIN.fullmatch(text)
    if found is None:
        return None
    whole = re.sub(r"\D", "", found["whole"]) or "0"
    return Decimal(f"{whole}.{found['part']}" if found["part"] else whole)


def _get(item: Any, field: str) -> Any:
    # ItemAdapter does not know msgspec's Structs.
    return getattr(item, field, None) if isinstance(item, msgspec.Struct) else ItemAdapter(item).get(field)


def _with(item: Any, prices: dict[str, Decimal]) -> Any:
    """Return the item with these fields changed: itself, or a copy of a Struct or a frozen dataclass."""
    if isinstance(item, msgspec.Struct):
        return msgspec.structs.replace(item, **prices)
    dataclass_options = getattr(item, "__dataclass_params__", None)
    if dataclass_options is not None and dataclass_options.frozen:
        return dataclasses.replace(item, **prices)
    ItemAdapter(item).update(prices)
    return item
