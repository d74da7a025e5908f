"""``scrape run``: one crawl, its signals, its progress, its summary and its exit status."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scraper.cli.options import arguments_option, complete_spider, parse_arguments, settings_option
from scraper.errors import OutputError, UsageError

if TYPE_CHECKING:
    from scraper.cli.progress import Progress
    from scraper.crawler import Crawler, Output, Result
    from scraper.spider import Spider


@click.command(add_help_option=False)
@click.argument("spider", required=False, shell_complete=complete_spider)
@arguments_option
@settings_option
@click.option("-o", "appended", multiple=True, metavar="FILE", help="Append items to FILE (.jsonl, .csv; - is stdout).")
@click.option("-O", "replaced", multiple=True, metavar="FILE", help="Write items to FILE, replacing what it holds.")
@click.option("--frontier", metavar="memory", help="Where requests wait (the setting frontier.use).")
@click.option("--stats", "stats_file", metavar="FILE", help="Write the summary to FILE as one JSON object.")
@click.option("--demo", is_flag=True, help="Serve the bundled bookshop for this run and start there.")
@click.option("-q", "quiet", is_flag=True, help="Show errors only.")
@click.option("--log-level", metavar="L", help="debug, info, warning or error (the setting log.level).")
@click.option("--log-format", metavar="F", help="auto, console or json (the setting log.format).")
@click.option("-h", "--help", "wants_help", is_flag=True, help="Show this, and the arguments of SPIDER if it is given.")
@click.pass_context
def run(context: click.Context, /, spider: str | None, wants_help: bool, **options: Any) -> int:
    """Run SPIDER: a spider's name, or the path of a .py file.

    Exit status: 0 finished; 1 finished, but a start request failed or a callback, pipeline or output broke; 2 nothing was
    requested because of a mistake; 130 interrupted.
    """
    if wants_help:
        click.echo(context.get_help())
        if spider is not None:
            click.echo(_arguments_help(spider))
        return 0
    if spider is None:
        raise click.UsageError("which spider? `scrape list` shows them", context)
    return _run(spider, **options)


def _run(
    target: str, *, arguments: tuple[str, ...], demo: bool, quiet: bool, stats_file: str | None, **given: Any
) -> int:
    import gc

    # Imports make no cyclic garbage: without the collector they take about a tenth less of the start-up time.
    gc.disable()
    from scraper.cli.progress import make_progress
    from scraper.crawler import load_settings, run_in_loop
    from scraper.loader import load_spider
    from scraper.log import Log
    from scraper.settings import option_layer
    from scraper.spider import make_spider

    cls = load_spider(target, Path.cwd())
    settings = load_settings(cls, [option_layer(_as_options(given))])
    outputs = _outputs(given["appended"], given["replaced"])
    if stats_file is not None:
        _check_stats_file(stats_file)
    spider = make_spider(cls, parse_arguments(arguments))
    progress = make_progress(settings.log.format, quiet)
    level = "error" if quiet else settings.log.level
    log = Log(level, "json" if settings.log.format == "json" else "console", progress.write)

    async def main() -> Result:
        from scraper.crawler import Crawler

        gc.freeze()
        gc.enable()
        if not demo:
            return await _supervised(Crawler(spider, settings, outputs=outputs, log=log), progress)
        from scraper.demo.bookshop import serve

        async with serve() as base:
            _start_at(spider, base)
            return await _supervised(Crawler(spider, settings, outputs=outputs, log=log), progress)

    result = run_in_loop(main())
    progress.end(result, [output.name for output in outputs])
    if stats_file is not None:
        _write_stats(stats_file, result)
    if result.reason == "interrupted":
        return 130
    return 1 if result.broken else 0


async def _supervised(crawler: Crawler, progress: Progress) -> Result:
    """Run with signal handlers: the first SIGINT or SIGTERM drains what is in flight, the second stops at once."""
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    signals = 0

    def interrupt() -> None:
        nonlocal signals
        signals += 1
        crawler.stop("interrupted")
        if signals > 1:
            crawler.kill()
        else:
            progress.write("stopping: waiting for what is in flight; once more to stop at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    progress.begin(crawler)
    try:
        return await crawler.run()
    finally:
        progress.pause()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _as_options(given: dict[str, Any]) -> list[str]:
    """Return the options that are settings of their own as -s options; they win over -s."""
    named = {"frontier": "frontier.use", "log_level": "log.level", "log_format": "log.format"}
    return [*given["options"], *(f"{name}={given[key]}" for key, name in named.items() if given[key] is not None)]


def _outputs(appended: tuple[str, ...], replaced: tuple[str, ...]) -> list[Output]:
    """Return the outputs, checked: each has a format, can be written, and is named once."""
    from scraper.crawler import Output
    from scraper.exporters.files import check_writable
    from scraper.registry import exporter_for

    outputs = [Output(name) for name in appended] + [Output(name, replace=True) for name in replaced]
    names = [output.name if output.name == "-" else str(Path(output.name).resolve()) for output in outputs]
    for number, output in enumerate(outputs):
        if names[number] in names[:number]:
            raise UsageError(f"{output.name} is named twice as an output")
        try:
            exporter_for(output.name)
            check_writable(output.name)
        except OutputError as error:
            raise UsageError(str(error)) from None
    return outputs


def _start_at(spider: Spider, base: str) -> None:
    """Have the spider start at the demo's first page and stay on the demo, whatever it would do otherwise."""
    from scraper.http import Request
    from scraper.urls import hostname_of

    async def start() -> Any:
        yield Request(base)

    spider.start_urls = [base]
    if spider.allowed_domains:
        spider.allowed_domains = [hostname_of(base)]
    vars(spider)["start"] = start


def _arguments_help(target: str) -> str:
    from scraper.loader import load_spider
    from scraper.spider import arguments_of

    cls = load_spider(target, Path.cwd())
    known = arguments_of(cls).values()
    if not known:
        return f'\nThe spider "{cls.name}" takes no arguments.'
    lines = [f'\nArguments of "{cls.name}" (-a NAME=VALUE):']
    for each in known:
        default = "required" if each.required else f"default {each.default!r}"
        lines.append(f"  {each.name + ': ' + each.type_name:<32} {default}")
    return "\n".join(lines)


def _check_stats_file(name: str) -> None:
    from scraper.exporters.files import check_writable

    try:
        check_writable(name)
    except OutputError as error:
        raise UsageError(str(error)) from None


def _write_stats(name: str, result: Result) -> None:
    import msgspec

    try:
        Path(name).write_bytes(msgspec.json.encode(result.stats, enc_hook=str) + b"\n")
    except OSError as error:
        print(f"scrape: cannot write to {name}: {error.strerror}", file=sys.stderr)
        result.broken = True
