"""What one shard fetches for a callback that runs in another: the request's answer, or its error, as plain values and back."""

from __future__ import annotations

from typing import Any

from scraper import errors
from scraper.errors import FetchError
from scraper.http import Headers, HttpError, Request, Response


def pack(outcome: Response | FetchError) -> dict[str, Any]:
    """Return an outcome as plain values."""
    if isinstance(outcome, HttpError):
        return {"error": "HttpError", **_pack_response(outcome.response)}
    if isinstance(outcome, FetchError):
        return {"error": type(outcome).__name__, "url": _bytes(outcome.url), "message": _bytes(outcome.message)}
    return _pack_response(outcome)


def unpack(values: dict[str, Any], request: Request | None = None) -> Response | FetchError:
    """Return the outcome that ``pack`` made the values of. Its request is not part of it."""
    kind = values.pop("error", None)
    url = _text(values.pop("url"))
    if kind is not None and kind != "HttpError":
        error: FetchError = getattr(errors, kind, FetchError)(url, _text(values["message"]))
        return error
    headers = Headers([(_text(name), _text(value)) for name, value in values.pop("headers")])
    protocol = _text(values.pop("protocol"))
    response = Response(url, request=request or Request.link(url), headers=headers, protocol=protocol, **values)
    return HttpError(response) if kind is not None else response


def _pack_response(response: Response) -> dict[str, Any]:
    return {
        "url": _bytes(response.url),
        "status": response.status,
        "headers": [(_bytes(name), _bytes(value)) for name, value in response.headers.items()],
        "body": response.body,
        "elapsed": response.elapsed,
        "ip_address": response.ip_address,
        "protocol": _bytes(response.protocol),
        "from_cache": response.from_cache,
    }


def _bytes(text: str) -> bytes:
    """Return any text as bytes; MessagePack's own may hold no lone surrogate, as which bytes of other encodings come."""
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
