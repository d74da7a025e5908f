"""Connections of aiohttp's through a SOCKS5 proxy (RFC 1928), which resolves the names. Needs the extra ``socks``."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from scraper.downloaders import causes
from scraper.errors import UsageError

try:
    import python_socks
    from aiohttp_socks import ProxyConnector
except ModuleNotFoundError:
    raise UsageError("SOCKS proxies are not installed: pip install 'scraper[socks]'") from None


_UNREACHED = frozenset(
    {1, 3, 4, 5, 6}
)  # RFC 1928 section 6: "general failure" is some proxies' word for a name that is none


class SocksConnector(ProxyConnector):
    """Connects through one proxy, within ``connect_timeout_s`` (0: no bound). What goes wrong is an OSError.

    ``_factory``, as in every connector of aiohttp's, makes the protocol.
    """

    connect_timeout_s: float = 0.0

    async def _connect_via_proxy(self, *args: Any, **kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(self.connect_timeout_s or None):
                transport, made = await super()._connect_via_proxy(*args, **kwargs)
        except asyncio.CancelledError as error:
            error.args = (causes.CONNECTING,)
            raise
        except (python_socks.ProxyError, python_socks.ProxyConnectionError) as error:
            refused = causes.ProxyRefused(str(error))
            refused.status = causes.BAD_GATEWAY if getattr(error, "error_code", None) in _UNREACHED else 0
            raise refused from error
        except ssl.SSLError as error:
            raise causes.HandshakeFailed(str(error)) from error
        except TimeoutError as error:  # python_socks' own bound, a minute, is one too
            raise causes.ConnectTimeout(causes.CONNECTING) from error
        protocol: Any = self._factory()  # aiohttp_socks has one of its own, which holds the stream
        protocol.made = made
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return transport, protocol
