"""Which URLs belong to the crawl: domains, depth, length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scraper.errors import InvalidURL
from scraper.http import Request
from scraper.urls import MAX_URL_LENGTH, host_of, hostname_of, normalize


class Scope:
    """The bounds of one crawl. ``domains`` empty: any; subdomains of a domain are in. ``max_depth`` 0: no bound."""

    def __init__(self, domains: Iterable[str] = (), max_depth: int = 0) -> None:
        self._domains = tuple(_domain(domain) for domain in ([domains] if isinstance(domains, str) else domains))
        self._suffixes = tuple("." + domain for domain in self._domains)
        self._named: set[str] = set()
        self._new: list[str] = []
        self._hosts: dict[str, bool] = {}
        self._max_depth = max_depth

    def add_host(self, host: str) -> None:
        """Let this host be in, whatever the domains say: a start URL names it."""
        if self._domains and host not in self._named:
            self._named.add(host)
            self._new.append(host)

    def changes(self) -> dict[str, Any]:
        """Return the start hosts that are new since the last call: see ``contracts.Stateful``."""
        new, self._new = self._new, []
        return {f"scope:{host}": True for host in new}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the start hosts of an earlier process."""
        self._named.update(name.removeprefix("scope:") for name in state if name.startswith("scope:"))

    def refuses(self, request: Request) -> str:
        """Return why the request does not belong to the crawl: "offsite", "depth", "length", or "" where it does."""
        if self._max_depth and request.depth > self._max_depth:
            return "depth"
        if len(request.url) > MAX_URL_LENGTH:
            return "length"
        if self._domains and not self._in_domains(request):
            return "offsite"
        return ""

    def _in_domains(self, request: Request) -> bool:
        if request.host in self._named:
            return True
        known = self._hosts.get(request.host)
        if known is None:
            name = hostname_of(request.url)
            known = name in self._domains or request.host in self._domains or name.endswith(self._suffixes)
            if len(self._hosts) >= 10_000:
                self._hosts.clear()
            self._hosts[request.host] = known
        return known


def _domain(text: str) -> str:
    """Return a domain as it stands in URLs: lower case, no leading dot, an international name in its ASCII form."""
    name = text.strip().lstrip(".")
    try:
        return host_of(normalize(f"http://{name}/"))
    except InvalidURL:
        return name.lower()
