"""Answers from the disk what was fetched before: by RFC 9111, or everything, for development.

It stands outside the parts that ask the server, so that a hit passes by the throttle and a body is stored decoded; and
inside retry, redirect and cookies, which see its answers as they would the server's. What may answer, and when, is in
``cache_rules``; the file in ``cache_store``.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from scraper.contracts import Again, Handler
from scraper.errors import FetchError, UsageError
from scraper.http import Headers, Request, Response
from scraper.log import Log
from scraper.middlewares.cache_rules import (
    Entry,
    Everything,
    Policy,
    Rfc9111,
    current_age_s,
    directives,
    freshened,
    may_stand_in,
    validators,
)
from scraper.middlewares.cache_store import Store
from scraper.stats import Stats

T = TypeVar("T")
_CANNOT_ANSWER = frozenset({500, 502, 503, 504})  # RFC 5861 section 4


class Cache:
    """Keeps answers in ``folder``, at most ``max_bytes`` of them, a file for each mode.

    A disk that fails costs the answers, not the crawl: it is said once, and the pages are fetched. ``clock`` gives the
    seconds since 1970. ``stats.cache`` counts hits, misses, and revalidations that found the stored answer good.
    """

    def __init__(
        self,
        *,
        mode: Literal["rfc9111", "everything"],
        folder: Path,
        max_age_s: float,
        max_bytes: int,
        user_agent: str,
        stats: Stats,
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._policy: Policy = Rfc9111(user_agent) if mode == "rfc9111" else Everything(max_age_s)
        self._folder = folder
        self._store = Store(folder, mode, max_bytes)
        self._stats = stats
        self._log = log
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._complained = False

    async def open(self, spider: Any) -> None:
        """Open the file. Raises UsageError where that is not possible."""
        self._thread = ThreadPoolExecutor(1, "cache")
        try:
            await self._in_thread(self._store.open)
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            raise UsageError(f"cannot use {self._folder} as cache.dir: {error}") from None

    async def close(self, spider: Any) -> None:
        """Close the file."""
        if self._thread is not None:
            await self._in_thread(self._store.close)
            self._thread.shutdown()

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        async def cache(request: Request) -> Response:
            key = self._policy.key(request)
            if key is None:
                response = await handle(request)
                outdated = self._policy.outdated(request, response)
                if outdated:
                    await self._try(self._store.drop, *outdated)
                return response
            entry = self._load(key)
            if entry is None or not self._policy.selects(entry, request):
                self._stats.cache["misses"] += 1
                return await self._fetch(handle, request, key)
            now = self._clock()
            if self._policy.is_fresh(entry, request, now):
                self._stats.cache["hits"] += 1
                return _answer(entry, request, now)
            return await self._revalidate(handle, request, key, entry)

        return cache

    async def _fetch(self, handle: Handler, request: Request, key: bytes) -> Response:
        asked_at = self._clock()
        response = await handle(request)
        await self._keep(request, key, response, asked_at)
        return response

    async def _keep(self, request: Request, key: bytes, response: Response, asked_at: float) -> None:
        """Store the answer, or forget the one before it where it was good and must not be stored."""
        entry = self._policy.entry(request, response, asked_at, self._clock())
        if entry is not None:
            await self._try(self._save, key, entry)
        elif response.status < 400:
            await self._try(self._store.drop, key)

    async def _revalidate(self, handle: Handler, request: Request, key: bytes, entry: Entry) -> Response:
        """Ask whether the stored answer still holds, section 4.3; take the server's new one where it does not."""
        asked_at = self._clock()
        checks = validators(entry)
        asking = request.replace(headers=[*_items(request.headers), *checks.items()]) if checks else request
        try:
            response = await handle(asking)
        except Again as again:
            _drop(again.request, checks)  # it comes by here once more
            raise
        except FetchError as error:
            if error.retryable and may_stand_in(entry, self._clock()):
                return self._stand_in(entry, request)
            raise
        now = self._clock()
        if response.status in _CANNOT_ANSWER and may_stand_in(entry, now):
            return self._stand_in(entry, request)
        if response.status != 304 or not checks:
            self._stats.cache["misses"] += 1
            await self._keep(request, key, response, asked_at)
            return response
        fresh = freshened(entry, response, asked_at, now)
        if fresh is None:
            # The server means another response than ours: forget ours and ask anew, through the frontier, unconditionally.
            await self._try(self._store.drop, key)
            raise Again(request.replace(retries=request.retries + 1), "retry", response=response)
        if "no-store" in directives(response.headers):
            await self._try(self._store.drop, key)
        else:
            await self._try(self._save, key, fresh)
        self._stats.cache["revalidated"] += 1
        return _answer(fresh, request, now, response.headers.getall("Set-Cookie", ()))

    def _stand_in(self, entry: Entry, request: Request) -> Response:
        self._stats.cache["hits"] += 1
        return _answer(entry, request, self._clock())

    async def _try(self, job: Callable[..., T], *arguments: Any) -> T | None:
        """Do it in the store's thread; None where the disk does not play along."""
        try:
            return await self._in_thread(job, *arguments)
        except (OSError, sqlite3.Error) as error:
            self._complain(error)
            return None

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            self._log.warning(
                "the cache cannot be used; pages are fetched", folder=str(self._folder), reason=str(error)
            )

    async def _in_thread(self, job: Callable[..., T], *arguments: Any) -> T:
        assert self._thread is not None, "open() comes first"
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, *arguments)

    def _load(self, key: bytes) -> Entry | None:
        try:
            stored = self._store.get(key)
            return _decode(stored) if stored is not None else None
        except (OSError, sqlite3.Error) as error:
            self._complain(error)
        except (msgspec.DecodeError, ValueError):
            pass  # it is no entry; the next one takes its place
        return None

    def _save(self, key: bytes, entry: Entry) -> None:
        self._store.put(key, _encode(entry))


class _Record(msgspec.Struct, array_like=True):
    """An entry as it is stored: headers as bytes, since servers send some that are no text."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    asked_at: float
    came_at: float
    selected_by: tuple[str, ...]
    selection: bytes
    ip_address: str | None
    protocol: str


_DECODER = msgspec.msgpack.Decoder(_Record)


def _encode(entry: Entry) -> bytes:
    headers = [(_to_bytes(name), _to_bytes(value)) for name, value in entry.headers.items()]
    return msgspec.msgpack.encode(
        _Record(
            entry.status,
            headers,
            entry.body,
            entry.asked_at,
            entry.came_at,
            entry.selected_by,
            entry.selection,
            entry.ip_address,
            entry.protocol,
        )
    )


def _decode(stored: bytes) -> Entry:
    record = _DECODER.decode(stored)
    headers = Headers((_to_text(name), _to_text(value)) for name, value in record.headers)
    return Entry(
        record.status,
        headers,
        record.body,
        record.asked_at,
        record.came_at,
        record.selected_by,
        record.selection,
        record.ip_address,
        record.protocol,
    )


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _answer(entry: Entry, request: Request, now: float, cookies: Iterable[str] = ()) -> Response:
    headers = Headers(entry.headers)
    headers.extend([("Set-Cookie", cookie) for cookie in cookies])
    headers["Age"] = str(int(current_age_s(entry, now)))  # section 5.1
    return Response(
        request.url,
        request=request,
        status=entry.status,
        headers=headers,
        body=entry.body,
        ip_address=entry.ip_address,
        protocol=entry.protocol,
        from_cache=True,
    )


def _items(headers: Headers | None) -> list[tuple[str, str]]:
    return list(headers.items()) if headers is not None else []


def _drop(request: Request, names: Iterable[str]) -> None:
    if request.headers is not None:
        for name in names:
            request.headers.popall(name, None)
