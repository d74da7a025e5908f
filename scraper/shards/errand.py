"""What one shard fetches for a callback that runs in another: the request's answer, or its error, as plain values and back."""

from __future__ import annotations

from typing import Any

from scraper import errors
from scraper.errors import FetchError
from scraper.frontiers import codec
from scraper.http import Headers, HttpError, Request, Response


def pack(outcome: Response | FetchError, errand: Request) -> dict[str, Any]:
    """Return what came of an errand as plain values."""
    if isinstance(outcome, HttpError):
        return {"error": "HttpError", **_pack_response(outcome.response, errand)}
    if isinstance(outcome, FetchError):
        known = vars(outcome).items()
        return {
            "error": _kind(outcome),
            "texts": {name: _bytes(value) for name, value in known if isinstance(value, str)},
            "others": {name: value for name, value in known if isinstance(value, (int, float, bytes))},
        }
    return _pack_response(outcome, errand)


def unpack(values: dict[str, Any], asked: Request) -> Response | FetchError:
    """Return the outcome that ``pack`` made the values of, for the request that a callback here made."""
    kind = values.pop("error", None)
    if kind is not None and kind != "HttpError":
        texts = {name: _text(value) for name, value in values["texts"].items()}
        error: FetchError = getattr(errors, kind)(texts["url"], texts["message"])
        vars(error).update(texts | values["others"])
        return error
    url, protocol = _text(values.pop("url")), _text(values.pop("protocol"))
    headers = Headers([(_text(name), _text(value)) for name, value in values.pop("headers")])
    request = _unpack_request(values.pop("request"), asked)
    response = Response(url, request=request, headers=headers, protocol=protocol, **values)
    return HttpError(response) if kind is not None else response


def _kind(error: FetchError) -> str:
    """Return the name of the error's class, or of the nearest that is not somebody's own."""
    names: list[str] = [cls.__name__ for cls in type(error).mro() if getattr(errors, cls.__name__, None) is cls]
    return names[0]


def _pack_response(response: Response, errand: Request) -> dict[str, Any]:
    return {
        "url": _bytes(response.url),
        "request": None if response.request is errand else _pack_request(response.request),
        "status": response.status,
        "headers": [(_bytes(name), _bytes(value)) for name, value in response.headers.items()],
        "body": response.body,
        "elapsed": response.elapsed,
        "ip_address": response.ip_address,
        "protocol": _bytes(response.protocol),
        "from_cache": response.from_cache,
    }


def _pack_request(request: Request) -> bytes:
    return codec.encode(request.replace(meta={}, cb_kwargs={}))


def _unpack_request(data: bytes | None, asked: Request) -> Request:
    """Return the request that was answered: the one that was made, or one that a redirect or a retry put in its place."""
    if data is None:
        return asked
    return codec.decode(data).replace(
        callback=asked.callback,
        errback=asked.errback,
        priority=asked.priority,
        depth=asked.depth,
        meta=dict(asked.meta),
        cb_kwargs=dict(asked.cb_kwargs),
    )


def _bytes(text: str) -> bytes:
    """Return any text as bytes; MessagePack's own may hold no lone surrogate, as which bytes of other encodings come."""
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
