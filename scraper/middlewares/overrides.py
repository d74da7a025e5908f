"""What is different for some hosts: their timeout, proxy, downloader and headers, where the request names none itself."""

from __future__ import annotations

from scraper.contracts import Handler
from scraper.host_settings import HostSettings
from scraper.http import Headers, Request, Response


class Overrides:
    """Completes requests by the [hosts] tables. Inside redirect, so that nothing is carried on to another host; outside
    headers and proxy, whose defaults are everybody's."""

    def __init__(self, hosts: HostSettings) -> None:
        self._hosts = hosts

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        async def complete(request: Request) -> Response:
            own = self._hosts.for_host(request.host)
            if own is None:
                return await handle(request)
            headers = Headers(own.headers)
            if own.user_agent is not None:
                headers.setdefault("User-Agent", own.user_agent)
            return await handle(
                request.complete(
                    headers,
                    timeout=request.timeout if request.timeout is not None else own.timeout,
                    proxy=request.proxy if request.proxy is not None else own.proxy,
                    downloader=request.downloader or own.downloader,
                )
            )

        return complete
