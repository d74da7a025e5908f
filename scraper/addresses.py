"""Which network addresses may be connected to: public ones always, private ones by ``download.private_addresses``.

The judgement is of the resolved address at connect time (so a name cannot be re-pointed between check and use), by the
IANA special-purpose registries as ``ipaddress`` knows them; IPv4 inside IPv6 is judged as IPv4.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Literal

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_UNICAST = IPv6Network("2000::/3")  # all that has been given out of IPv6 (RFC 4291 section 2.4)
_NEWER_THAN_PYTHON = (ip_network("192.0.0.0/24"), ip_network("3fff::/20"))  # RFC 6890, RFC 9637


class AddressGuard:
    """Says whether a host may be reached at an address. ``policy`` is "seeds", "always" or "never"."""

    def __init__(self, policy: Literal["seeds", "always", "never"] = "seeds") -> None:
        self._policy = policy
        self._seeds: set[str] = set()
        self._new: list[str] = []

    def changes(self) -> dict[str, Any]:
        """Return the seeds that are new since the last call: see ``contracts.Stateful``."""
        news, self._new = self.news, []
        return news

    @property
    def news(self) -> dict[str, Any]:
        """What ``changes`` is to say."""
        return {f"seed:{hostname}": True for hostname in self._new}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the seeds of an earlier process."""
        self._seeds.update(name.removeprefix("seed:") for name in state if name.startswith("seed:"))

    def add_seed(self, hostname: str) -> None:
        """Let the host of a start URL be private."""
        if hostname not in self._seeds:
            self._seeds.add(hostname)
            self._new.append(hostname)

    def allows(self, hostname: str, address: str) -> bool:
        """Whether ``hostname``, resolved to ``address`` (IP text), may be connected to."""
        if self._policy == "always" or is_public(address):
            return True
        return self._policy == "seeds" and hostname in self._seeds


@lru_cache(maxsize=4096)
def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable: not private, loopback, link-local, CGNAT, reserved or multicast."""
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if embedded is None and ip in _NAT64:
            embedded = IPv4Address(int(ip) & 0xFFFF_FFFF)
        if embedded is None and ip not in _UNICAST:
            return False
        ip = embedded or ip
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in _NEWER_THAN_PYTHON)
