"""Authorities that are read when a context is first used are the same ones, and no connection is made without them."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from scraper.downloaders.tls import late_authorities


@pytest.fixture
def late() -> ssl.SSLContext:
    """A context as aiohttp makes its own when it is imported."""
    with late_authorities():
        context = ssl.create_default_context()
    assert type(context) is not ssl.SSLContext
    return context


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Connect both in memory; raises the client's error."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.fixture
def authority() -> trustme.CA:
    """One that the system does not know."""
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> ssl.SSLContext:
    """A server's context, for "good.example"."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("good.example").configure_cert(context)
    return context


def test_a_server_that_nobody_vouches_for_is_refused(late: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """The first connection reads the authorities; none of them is this one's."""
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(late, server, "good.example")


def test_the_systems_authorities_are_trusted(
    late: ssl.SSLContext,
    server: ssl.SSLContext,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server of one of them is connected to, under its own name alone, time and again."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for _ in range(2):
        shake_hands(late, server, "good.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(late, server, "other.example")


@pytest.mark.parametrize("ask", [lambda each: each.cert_store_stats(), lambda each: len(each.get_ca_certs())])
def test_it_tells_what_an_ordinary_one_tells(late: ssl.SSLContext, ask: Callable[[ssl.SSLContext], Any]) -> None:
    """Whoever asks for the authorities gets those of the system."""
    ordinary = ssl.create_default_context()
    assert ask(late) == ask(ordinary) != 0
    assert type(late) is ssl.SSLContext


def test_other_contexts_are_as_ever(late: ssl.SSLContext) -> None:
    """Those made for servers, and those made afterwards, read their authorities at once."""
    with late_authorities():
        assert type(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)) is ssl.SSLContext
    assert type(ssl.create_default_context()) is ssl.SSLContext
    assert late.verify_mode is ssl.CERT_REQUIRED
    assert late.check_hostname
