"""Which table of the settings holds for a host."""

from __future__ import annotations

import pytest

from scraper.host_settings import HostSettings
from scraper.settings import Host


@pytest.mark.parametrize(
    ("host", "delay"),
    [
        ("example.com", 1),
        ("example.com:8080", 2),
        ("example.com:9090", 1),
        ("a.example.com", 3),
        ("b.a.example.com", 4),
        ("b.a.example.com:81", 5),
        ("c.b.a.example.com", 4),
        ("x.example.com", 6),
        ("x.example.com:81", 6),
        ("myexample.com", None),
        ("com", None),
        ("127.0.0.1", None),
        ("127.0.0.1:8001", 7),
        ("127.0.0.1:8002", None),
        ("9.0.0.1", None),
        ("[::1]", 8),
        ("[::1]:80", 8),
        ("[::1]:81", 9),
    ],
)
def test_the_most_particular_pattern_wins(host: str, delay: float | None) -> None:
    """A name before a group, a smaller group before a larger one, a port before any port."""
    patterns = {
        "example.com": 1,
        "example.com:8080": 2,
        "*.example.com": 3,
        "*.a.example.com": 4,
        "*.a.example.com:81": 5,
        "x.example.com": 6,
        "127.0.0.1:8001": 7,
        "*.0.0.1": 99,
        "[::1]": 8,
        "[::1]:81": 9,
    }
    settings = HostSettings({pattern: Host(delay=number) for pattern, number in patterns.items()})
    found = settings.for_host(host)
    assert (found.delay if found is not None else None) == delay
    assert settings.for_host(host) is found


def test_each_key_for_itself() -> None:
    """What the more particular table leaves open is taken from the next, headers name by name."""
    settings = HostSettings(
        {
            "a.example.com": Host(delay=0.0, headers={"X-Key": "a"}),
            "*.example.com": Host(delay=5.0, timeout=3.0, headers={"x-key": "all", "X-More": "1"}),
        }
    )
    assert settings.for_host("a.example.com") == Host(delay=0.0, timeout=3.0, headers={"X-Key": "a", "X-More": "1"})
    assert settings
    assert not HostSettings({})
    assert settings.any("timeout")
    assert not settings.any("robots")
