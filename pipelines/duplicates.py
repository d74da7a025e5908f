"""Each item once, by what the item says rather than by its page.

In settings.toml::

    [[pipelines]]
    use = "pipelines.duplicates:DropDuplicates"
    key = "upc"
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from itemadapter import ItemAdapter

from scraper import DropItem, Spider


class DropDuplicates:
    """Drops an item whose key was seen earlier in the run. ``key`` is a field, or several that count together.

    An item in which every field of the key is missing or None passes, since nothing tells it from others.

    Memory grows with the number of different keys, and with nothing else: a 16-byte hash is kept of each, however long
    the key is, and takes about 100 bytes with its place in the set, so 100 MB for a million keys. That two different
    keys among a thousand million share a hash has a chance below 10^-20. What was seen is known to one process for one
    run: a resumed run starts with none, and shards do not know each other's.
    """

    def __init__(self, key: str | list[str]) -> None:
        self._key: Sequence[str] = (key,) if isinstance(key, str) else tuple(key)
        if not self._key:
            raise ValueError("key names no field")
        self._seen: set[bytes] = set()

    def process_item(self, item: Any, spider: Spider) -> Any:
        """Return the item as it is. Raises DropItem where its key was seen."""
        values = _values(item, self._key)
        if all(value is None for value in values):
            return item
        digest = blake2b(msgspec.json.encode(values, order="deterministic"), digest_size=16).digest()
        if digest in self._seen:
            pairs = zip(self._key, values, strict=True)
            raise DropItem(f"duplicate: {', '.join(f'{field} {value!r}' for field, value in pairs)}")
        self._seen.add(digest)
        return item


def _values(item: Any, fields: Sequence[str]) -> list[Any]:
    # ItemAdapter does not know msgspec's Structs.
    if isinstance(item, msgspec.Struct):
        return [getattr(item, field, None) for field in fields]
    adapter = ItemAdapter(item)
    return [adapter.get(field) for field in fields]
