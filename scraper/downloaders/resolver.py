"""From host names to addresses: by the system, or by what ``download.resolver`` names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Takes a host name (in ASCII) to its IP addresses, best first, as text. Raises OSError where it cannot."""


async def by_system(host: str) -> list[str]:
    """Ask the system, as any program does: /etc/hosts, DNS, whatever it is set up for (RFC 3493 section 6.1).

    Each look-up has a thread of its own. A name server that does not answer takes 10 s and more; in the event loop's pool,
    which has two threads for this under uvloop, two such names would hold up all others, and at the end the process too.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        found: list[str] = []
        failure: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            found = [str(entry[4][0]) for entry in entries]
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long
            failure = error
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(tell, found, failure)

    def tell(found: list[str], failure: Exception | None) -> None:
        if answer.done():
            return
        if failure is None:
            answer.set_result(found)
        else:
            answer.set_exception(failure)

    Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
    return await answer


async def addresses_of(host: str, resolve: Resolve) -> list[str]:
    """Return the distinct addresses of ``host``. Raises socket.gaierror, whatever ``resolve``, a user's own, may raise."""
    try:
        addresses = list(dict.fromkeys(await resolve(host)))
        for address in addresses:
            ip_address(address)
    except socket.gaierror:
        raise
    except Exception as error:
        raise socket.gaierror(socket.EAI_FAIL, f"download.resolver: {type(error).__name__}: {error}") from error
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    return addresses
