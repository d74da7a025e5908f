"""What TLS trusts: the system's certificate authorities, and those of ``download.ca_file``."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scraper.errors import UsageError


def make_context(verify: bool, ca_file: str = "") -> ssl.SSLContext:
    """Return a client's context. Raises UsageError where ``ca_file`` cannot be read or holds no certificates."""
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise UsageError(f"download.ca_file: cannot read certificates from {ca_file}: {reason}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def late_authorities() -> Iterator[None]:
    """Have the contexts that are made inside read the system's authorities when they are first used.

    Importing aiohttp makes one: to read them takes a sixth of the time in which a run starts, and http alone needs none.
    """
    contexts: Any = ssl.SSLContext
    load = contexts.load_default_certs

    def load_late(context: ssl.SSLContext, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        if type(context) is ssl.SSLContext and purpose is ssl.Purpose.SERVER_AUTH:
            context.__class__ = _LateContext
        else:
            load(context, purpose)

    contexts.load_default_certs = load_late
    try:
        yield
    finally:
        contexts.load_default_certs = load


class _LateContext(ssl.SSLContext):
    """A client's context that trusts nobody yet, and becomes an ordinary one when it is asked for anything."""

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self._loaded().wrap_bio(*args, **options)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return self._loaded().wrap_socket(*args, **options)

    def cert_store_stats(self) -> dict[str, int]:
        return self._loaded().cert_store_stats()

    def get_ca_certs(self, *args: Any, **options: Any) -> Any:
        return self._loaded().get_ca_certs(*args, **options)

    def _loaded(self) -> ssl.SSLContext:
        context: ssl.SSLContext = self
        context.__class__ = ssl.SSLContext
        context.load_default_certs()
        return context
