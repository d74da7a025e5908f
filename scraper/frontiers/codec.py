"""Requests as bytes and back: a MessagePack array of plain values, never pickle (https://msgpack.org/).

Fields stand in a fixed order, those at their defaults are cut off the end, and new ones are only ever added there: so
state written by an older version can be read by a newer one.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec

from scraper.http import Headers, Request, plain

_encode = msgspec.msgpack.Encoder(enc_hook=plain).encode
_decode = msgspec.msgpack.Decoder().decode

_DEFAULTS: dict[str, Any] = {
    # The most often set first.
    "url": "",
    "callback": None,
    "depth": 0,
    "_cb_kwargs": None,
    "_meta": None,
    "priority": 0,
    "errback": None,
    "is_start": False,
    "dont_filter": False,
    "retries": 0,
    "redirects": (),
    "method": "GET",
    "headers": None,
    "body": None,
    "cookies": None,
    "timeout": None,
    "proxy": None,
    "downloader": None,
    "written": 0,
}
_FIELDS = tuple(_DEFAULTS)
_HEADERS = _FIELDS.index("headers")
_VALUES = tuple(_DEFAULTS.values())
_DEPTH = _FIELDS.index("depth")
_PLAIN = _FIELDS.index("_cb_kwargs")
_REST_OF_PLAIN = _VALUES[_PLAIN:]
_STARTING = _FIELDS.index("is_start") + 1
_REST_OF_STARTING = _VALUES[_STARTING:]
_values_of = attrgetter(*_FIELDS)
_LINK = {"url", "callback", "depth", "host", "origin"}  # the last two come of the URL


def encode(request: Request) -> bytes:
    """Return the request as bytes."""
    if request.__dict__.keys() <= _LINK:  # nine of ten requests
        return _encode((request.url, request.callback, request.depth))
    all_values = _values_of(request)
    if all_values[_PLAIN:] == _REST_OF_PLAIN:
        return _encode(all_values[:_PLAIN])
    if all_values[_STARTING:] == _REST_OF_STARTING:
        all_values = all_values[:_STARTING]  # a start URL
    values = list(all_values)
    if request.headers is not None:
        values[_HEADERS] = [(str(name), value) for name, value in request.headers.items()]  # str, not multidict's own
    while values[-1] == _VALUES[len(values) - 1]:
        values.pop()
    return _encode(values)


def decode(data: bytes) -> Request:
    """Return the request that ``encode`` made the bytes of. Raises ValueError where they are damaged."""
    values: list[Any] = _decode(data)
    request = Request.link(values[0], values[1] if len(values) > 1 else None)
    if len(values) <= _PLAIN:
        if len(values) > _DEPTH:
            request.depth = values[_DEPTH]
        return request
    for name, value in zip(_FIELDS[2:], values[2:], strict=False):
        setattr(request, name, value)
    if request.headers is not None:
        request.headers = Headers([(name, value) for name, value in values[_HEADERS]])
    request.redirects = tuple(request.redirects)
    return request
