"""``scrape demo`` and ``scrape version``."""

from __future__ import annotations

import click


@click.command(short_help="Serve the bundled bookshop until Ctrl-C.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port on 127.0.0.1; 0: a free one.",
)
def demo(port: int) -> int:
    """Serve the bundled bookshop on this machine until Ctrl-C: 1,000 books in 50 categories to practise on."""
    import asyncio
    import os

    from scraper.demo.bookshop import serve
    from scraper.errors import UsageError

    async def main() -> None:
        try:
            async with serve(port=port) as base:
                click.echo(f"the bookshop is open at {base} (Ctrl-C closes it)")
                await asyncio.Event().wait()
        except OSError as error:
            raise UsageError(f"cannot serve on port {port}: {os.strerror(error.errno or 0)}") from None

    asyncio.run(main())
    return 0


@click.command()
def version() -> int:
    """Show the versions of this program and its parts."""
    import platform
    from importlib.metadata import version as of

    from scraper import __version__

    click.echo(f"scraper {__version__}")
    click.echo(f"Python  {platform.python_version()} ({platform.system()} {platform.machine()})")
    for name in ("aiohttp", "lxml", "parsel", "uvloop"):
        click.echo(f"{name:<7} {of(name)}")
    return 0
