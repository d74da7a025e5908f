"""Which network addresses a crawl may connect to."""

from __future__ import annotations

from typing import Literal

import pytest

from scraper.addresses import AddressGuard, is_public

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::",
]

PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "100.64.0.1",  # CGNAT
    "100.100.100.200",  # a cloud's metadata, in CGNAT
    "169.254.169.254",  # clouds' metadata
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # 127.0.0.1, IPv4-compatible
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:7f00:1",  # 127.0.0.1, IPv4-translated
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",  # NAT64 of a local network
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:a00:1::",
    "2001:db8::1",
    "2001::1",  # Teredo
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",  # a cloud's metadata
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "100::1",
    "4000::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """A globally reachable address may be connected to under every policy."""
    assert is_public(address)
    assert AddressGuard("never").allows("h", address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Loopback, private, link-local, CGNAT, metadata, multicast and reserved ones, IPv4 inside IPv6 too, are not public."""
    assert not is_public(address)
    assert not AddressGuard("seeds").allows("h", address)


@pytest.mark.parametrize(
    ("policy", "seed", "other"), [("seeds", True, False), ("always", True, True), ("never", False, False)]
)
def test_policies(policy: Literal["seeds", "always", "never"], seed: bool, other: bool) -> None:
    """A private address is reached by a start URL's host alone, by all, or by none."""
    guard = AddressGuard(policy)
    guard.add_seed("intranet")
    assert guard.allows("intranet", "10.0.0.1") is seed
    assert guard.allows("elsewhere", "10.0.0.1") is other
    assert guard.allows("sub.intranet", "10.0.0.1") is other


def test_seeds_last_over_a_crash() -> None:
    """New seeds are given out once, and another process that takes them up lets them be private."""
    guard = AddressGuard("seeds")
    guard.add_seed("intranet")
    guard.add_seed("intranet")
    state = guard.changes()
    assert guard.changes() == {}
    other = AddressGuard("seeds")
    other.restore({**state, "scope:elsewhere": True})
    assert other.allows("intranet", "10.0.0.1")
    assert not other.allows("elsewhere", "10.0.0.1")
