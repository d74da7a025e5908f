"""What is fetched in another shard comes back as it was."""

from __future__ import annotations

import msgspec

from scraper.errors import ConnectError
from scraper.http import Headers, Request, Response
from scraper.shards.errand import pack, unpack

ODD = "caf\udce9 \ud83d"
"""Text that no UTF-8 can hold: a byte of another encoding, and half a character out of a JSON document."""


def test_any_text_travels() -> None:
    """Of headers, URLs and messages."""
    request = Request("http://127.0.0.1/")
    response = Response(f"http://127.0.0.1/{ODD}", request=request, headers=Headers([("X-Name", ODD)]), protocol=ODD)
    found = unpack(msgspec.msgpack.decode(msgspec.msgpack.encode(pack(response))))
    assert isinstance(found, Response)
    assert (found.url, found.headers["x-name"], found.protocol) == (response.url, ODD, ODD)
    error = unpack(msgspec.msgpack.decode(msgspec.msgpack.encode(pack(ConnectError(response.url, ODD)))))
    assert isinstance(error, ConnectError)
    assert (error.url, error.message) == (response.url, ODD)
