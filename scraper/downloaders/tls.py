"""What TLS trusts: the system's certificate authorities, and those of ``download.ca_file``."""

from __future__ import annotations

import ssl

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
