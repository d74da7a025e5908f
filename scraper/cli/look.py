"""``scrape shell``, ``fetch`` and ``parse``: one page, to look at while writing a spider.

A person asks for one page here, as with a browser, so robots.txt is not consulted; everything else is as in a run.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scraper.cli.options import arguments_option, complete_spider, parse_arguments, settings_option
from scraper.cli.session import prints_aside
from scraper.errors import FetchError, InvalidURL, ScraperError, SpiderError, UsageError
from scraper.log import safe

if TYPE_CHECKING:
    from scraper.http import Request, Response
    from scraper.settings import Settings
    from scraper.spider import Spider


@click.command(short_help="Fetch URL and print its body, or its headers.")
@click.argument("url")
@click.option("--headers", is_flag=True, help="Print the status and the headers, not the body.")
@settings_option
def fetch(url: str, headers: bool, options: tuple[str, ...]) -> int:
    """Fetch URL as a spider would and print its body to standard output."""
    try:
        response = _fetched(url, _settings(None, options))
    except FetchError as error:
        return _failed(error)
    if headers:
        click.echo(f"{response.protocol} {response.status}")
        for name, value in response.headers.items():
            click.echo(f"{name}: {value}")
    else:
        sys.stdout.buffer.write(response.body)
        sys.stdout.buffer.flush()
    return 0 if response.status < 400 else 1


@click.command(short_help="Open a Python shell on the page at URL.")
@click.argument("url", required=False)
@settings_option
def shell(url: str | None, options: tuple[str, ...]) -> int:
    """Open a Python shell on URL, with response, request, fetch(url) and spider. IPython is used where it is installed."""
    from scraper.spider import Spider

    chosen = _settings(None, options)
    spider = Spider("shell")
    names: dict[str, Any] = {"spider": spider, "response": None, "request": None}

    def show(target: str | Request) -> Response | None:
        """Fetch a URL or Request; sets response and request."""
        try:
            response = _fetched(target, chosen)
        except ScraperError as error:
            click.echo(f"failed: {error}", err=True)
            return None
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            return None
        names.update(response=response, request=response.request)
        return response

    names["fetch"] = show
    if url is not None:
        try:
            response = _fetched(url, chosen)
        except FetchError as error:
            return _failed(error)
        names.update(response=response, request=response.request)
    _interact(names)
    return 0


@click.command(short_help="Show what a spider's callback makes of URL.")
@click.argument("url")
@click.option(
    "--spider", "target", shell_complete=complete_spider, help="The spider; without it, by its allowed_domains."
)
@click.option("-c", "--callback", default="parse", show_default=True, help="The method of the spider to call.")
@arguments_option
@settings_option
def parse(url: str, target: str | None, callback: str, arguments: tuple[str, ...], options: tuple[str, ...]) -> int:
    """Fetch URL, call one callback of a spider on it, and print the items and requests it gives."""
    from scraper.crawler import run_in_loop
    from scraper.loader import load_spider
    from scraper.spider import make_spider

    with prints_aside(needed=True):
        cls = load_spider(target, Path.cwd()) if target is not None else _spider_of(url)
        spider = make_spider(cls, parse_arguments(arguments))
        method = getattr(spider, callback, None)
        if not callable(method):
            raise SpiderError(f'spider "{cls.name}" has no method {callback}()')
        items, requests, broken = run_in_loop(_parsed(spider, method, url, _settings(cls, options)))
    click.echo(f"# {len(items)} items", err=True)
    sys.stdout.buffer.write(b"".join(items))
    sys.stdout.buffer.flush()
    click.echo(f"# {len(requests)} requests", err=True)
    for request in requests:
        click.echo(f"{request.method} {request.url}  -> {_name(request.callback)}", err=True)
    return 1 if broken else 0


def _settings(cls: type[Spider] | None, options: tuple[str, ...]) -> Settings:
    from scraper.crawler import load_settings
    from scraper.layers import mapping_layer, option_layer
    from scraper.spider import Spider

    asked = mapping_layer({"politeness.robots": False}, "one page")
    stateless = mapping_layer({"frontier.use": "memory"}, "one page")
    return load_settings(cls or Spider, [asked, option_layer(options), stateless])


def _fetched(target: str | Request, settings: Settings) -> Response:
    """Fetch one page by a crawl of one request, so that redirects, retries, cookies and limits are those of a run.

    Raises UsageError for a bad URL, FetchError where no response comes.
    """
    import msgspec

    from scraper.crawler import run_in_loop
    from scraper.http import Request
    from scraper.spider import Failure, Spider

    try:
        request = target if isinstance(target, Request) else Request(target)
    except InvalidURL as error:
        raise UsageError(str(error)) from None
    outcome: list[Response | Exception] = []

    class OnePage(Spider):
        name = "page"

        async def start(self) -> Any:
            yield request.replace(callback="parse", errback="failed")

        def parse(self, response: Response) -> None:
            outcome.append(response)

        def failed(self, failure: Failure) -> None:
            outcome.append(failure.response or failure.error)

    run_in_loop(_crawled(OnePage(), msgspec.structs.replace(settings, pipelines=())))
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


async def _crawled(spider: Spider, settings: Settings, level: str = "error") -> bool:
    from scraper.crawler import Crawler
    from scraper.log import Log

    result = await Crawler(spider, settings, log=Log(level)).run()
    return result.broken


async def _parsed(spider: Spider, method: Any, url: str, settings: Settings) -> tuple[list[bytes], list[Request], bool]:
    """Run the callback inside a crawl of one page; collect what it yields, items as lines, instead of following it.

    What a run refuses is refused.
    """
    from scraper.callbacks import Checker, iterate
    from scraper.exporters.jsonl import encode
    from scraper.http import Request
    from scraper.items import is_item, unfit
    from scraper.registry import DOWNLOADERS

    items: list[bytes] = []
    requests: list[Request] = []

    async def start() -> Any:
        yield Request(url, "parse_once")

    async def parse_once(response: Response) -> None:
        async for value in iterate(method(response)):
            if isinstance(value, Request):
                checker.check(value)
                requests.append(value)
            elif is_item(value):
                items.append(encode(value))
            elif value is not None:
                raise unfit(value)

    checker = Checker(spider, DOWNLOADERS)
    vars(spider).update(start=start, parse_once=parse_once)
    broken = await _crawled(spider, settings, "warning")
    return items, requests, broken


def _spider_of(url: str) -> type[Spider]:
    """Return the project's spider whose allowed_domains hold the URL's host."""
    from scraper.http import Request
    from scraper.loader import find_spiders, load_spider, project_root
    from scraper.scope import Scope
    from scraper.spider import check_lists
    from scraper.urls import hostname_of

    try:
        request = Request(url)
    except InvalidURL as error:
        raise UsageError(str(error)) from None
    found, _errors = find_spiders(project_root(Path.cwd()))
    for each in found:
        cls = load_spider(each.name, Path.cwd())
        check_lists(cls)
        if cls.allowed_domains and not Scope(cls.allowed_domains).refuses(request):
            return cls
    raise UsageError(f"no spider allows {hostname_of(request.url)}; name one with --spider")


def _failed(error: FetchError) -> int:
    """Say why there is no page; return the exit status of a run whose start request failed."""
    print(f"scrape: {safe(str(error))}", file=sys.stderr)
    return 1


def _name(callback: Any) -> str:
    return callback if isinstance(callback, str) else getattr(callback, "__name__", "parse")


def _interact(names: dict[str, Any]) -> None:
    """Open IPython on ``names``, or Python's own console where it is missing."""
    banner = (
        "\n".join(f"  {name:<10} {value}" for name, value in names.items() if name != "fetch")
        + "\n  fetch      fetch(url or Request) sets response and request"
    )
    try:
        from IPython.terminal.embed import InteractiveShellEmbed
    except ImportError:
        InteractiveShellEmbed = None
    if InteractiveShellEmbed is not None:
        InteractiveShellEmbed(banner1=banner, user_ns=names)()
        return
    import code

    # Outside the except clause, or each error of the user's would be shown as one that followed from the ImportError.
    with suppress(ImportError):
        import readline  # noqa: F401 - gives the console its line editing
    code.interact(banner, local=names, exitmsg="")
