"""Which network addresses may be connected to: public ones always, private ones by ``download.private_addresses``.

The judgement is of the resolved address at connect time (so a name cannot be re-pointed between check and use), by the
IANA special-purpose registries as ``ipaddress`` knows them; IPv4 inside IPv6 is judged as IPv4.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

_NAT64 = 0x0064_FF9B << 96  # 64:ff9b::/96, RFC 6052


class AddressGuard:
    """Says whether a host may be reached at an address. ``policy`` is "seeds", "always" or "never"."""

    def __init__(self, policy: Literal["seeds", "always", "never"] = "seeds") -> None:
        self._policy = policy
        self._seeds: set[str] = set()

    def add_seed(self, hostname: str) -> None:
        """Let the host of a start URL be private."""
        self._seeds.add(hostname)

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
        if embedded is None and int(ip) >> 32 == _NAT64 >> 32:
            embedded = IPv4Address(int(ip) & 0xFFFF_FFFF)
        ip = embedded or ip
    return ip.is_global and not ip.is_multicast
