"""A crawl shared by many machines: joining it, and ``scrape collect``, which makes one file of what its workers wrote.

Each worker writes a part of its own, ``items.jsonl.parts/<worker>.jsonl`` for ``-o items.jsonl``. Redis knows how far each
part reaches; what lies behind that belongs to pages that others have fetched since.
"""

from __future__ import annotations

import csv
import os
import re
import socket
from codecs import getwriter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from scraper.cli.options import as_options, parse_arguments
from scraper.cli.session import check_stats_file, supervised, without_limit, write_stats
from scraper.errors import OutputError, UsageError

if TYPE_CHECKING:
    from scraper.crawler import Output, Result
    from scraper.frontiers.roll import Asked, Roll
    from scraper.frontiers.server import Server
    from scraper.settings import Settings
    from scraper.spider import Spider

T = TypeVar("T")
_COPY_BYTES = 2**20


def join(cls: type[Spider], target: str, *, stats_file: str | None, **given: Any) -> int:
    """Run a spider as one worker of a job in Redis, begun here if there is none of that name; return the exit status."""
    from scraper.crawler import load_settings
    from scraper.frontiers.roll import Asked
    from scraper.frontiers.server import check_job, shown
    from scraper.layers import option_layer
    from scraper.spider import make_spider

    settings = load_settings(cls, [option_layer(as_options(given))])
    if given["demo"]:
        raise UsageError("--demo serves one run; it does not go with a crawl shared through Redis")
    if settings.shards.count != 1:
        raise UsageError(
            "shards share the processors of one machine, and a Redis many machines: leave out --shards (shards.count), and "
            "start as many workers as there are processors"
        )
    url, job = settings.frontier.use, check_job(given["job_dir"] or cls.name)
    asked = Asked(cls.name, parse_arguments(given["arguments"]))
    arguments = asked.arguments
    spider = make_spider(cls, arguments)
    roll = with_redis(url, _look(job))
    if roll is None and (given["resume"] or given["retry_failed"]):
        raise UsageError(f'there is no run "{job}" in {shown(url)} to resume')
    if roll is not None and not (roll.is_void and (arguments or cls.name != roll.asked.spider)):
        _check_same(job, roll.asked, asked)
        if roll.status == "finished" and not (given["retry_failed"] and roll.counts.failed):
            click.echo(
                f'the run "{job}" is finished: {roll.counts.done:,} requests done, {roll.items:,} items; `scrape collect` '
                "gives them, `scrape jobs --frontier … remove` makes room for a new run of that name",
                err=True,
            )
            return 0
        asked = roll.asked
    worker = f"{re.sub('[^A-Za-z0-9.-]', '-', socket.gethostname())[:60]}-{os.getpid()}-{token_hex(3)}"
    names = [*given["appended"], *given["replaced"]]
    outputs = _parts(names, worker)
    asked.outputs = asked.outputs or names
    if stats_file is not None:
        check_stats_file(stats_file)
    asked.began = asked.began or datetime.now(UTC).isoformat(timespec="seconds")
    held = with_redis(url, _enlist(job, asked))
    _check_same(job, held, asked)  # another may have begun it since
    if not names:
        outputs = _parts(held.outputs, worker)
    if held.arguments != arguments:
        spider = make_spider(cls, held.arguments)
    result = _work(spider, target, settings, outputs, job, worker, given)
    if stats_file is not None:
        write_stats(stats_file, result)
    if result.reason == "interrupted":
        return 130
    return 1 if result.broken else 0


def _work(
    spider: Spider, target: str, settings: Settings, outputs: list[Output], job: str, worker: str, given: dict[str, Any]
) -> Result:
    from scraper.cli.progress import make_progress
    from scraper.crawler import Crawler, Membership, run_in_loop
    from scraper.log import Log, take_over

    progress = make_progress(settings.log.format, given["quiet"], items_on_stdout=False)
    level = "error" if given["quiet"] else settings.log.level
    log = Log(level, "json" if settings.log.format == "json" else "console", progress.write)
    take_over(log)
    about = {"host": socket.gethostname(), "pid": os.getpid()}

    async def main() -> Result:
        membership = Membership(job, worker, about)
        crawler = Crawler(spider, settings, outputs=outputs, membership=membership, log=log)
        return await supervised(crawler, progress, given["retry_failed"])

    result = run_in_loop(main())
    progress.end(result, [os.path.relpath(output.name) for output in outputs])
    if result.reason != "finished" and result.stats["pending"]:
        progress.note(
            f"to go on: scrape run {target} --job {job}{without_limit(result.reason)}, with the same --frontier"
        )
    return result


def _check_same(job: str, held: Asked, asked: Asked) -> None:
    if held.spider != asked.spider:
        raise UsageError(f'the run "{job}" is one of the spider "{held.spider}", not "{asked.spider}"')
    if asked.arguments and asked.arguments != held.arguments:
        known = " ".join(f"-a {name}={value}" for name, value in held.arguments.items()) or "none"
        raise UsageError(f'the run "{job}" was begun with other arguments ({known}); leave -a out to join it')


def _parts(names: list[str], worker: str) -> list[Output]:
    """Return this worker's own part of each output, in a folder beside it."""
    from scraper.crawler import Output
    from scraper.registry import exporter_for

    outputs = []
    for number, name in enumerate(names):
        if name == "-":
            raise UsageError("-o -: a crawl shared through Redis writes to files, for `scrape collect` to put together")
        if Path(name).name in {Path(other).name for other in names[:number]}:
            raise UsageError(
                f"-o {name}: `scrape collect` tells the outputs of a crawl apart by their names; two have this one"
            )
        try:
            exporter_for(name)
            path = Path(name).absolute()
            folder = path.with_name(path.name + ".parts")
            folder.mkdir(exist_ok=True)
        except OutputError as error:
            raise UsageError(str(error)) from None
        except OSError as error:
            raise UsageError(f"cannot write to {name}: {error.strerror}") from None
        outputs.append(Output(str(folder / f"{worker}{path.suffix}")))
    return outputs


def with_redis(url: str, ask: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
    """Connect to a Redis, ask it something, and leave it. Raises UsageError where it cannot be reached."""
    import asyncio

    from scraper.errors import StateError
    from scraper.frontiers.server import Server

    async def main() -> T:
        server = Server(url, lambda *_, **__: None)
        await server.open()
        try:
            return await ask(server)
        except StateError as error:
            raise UsageError(str(error)) from None
        finally:
            await server.close()

    return asyncio.run(main())


def _look(job: str) -> Callable[[Server], Coroutine[Any, Any, Roll | None]]:
    from scraper.frontiers.roll import look

    return lambda server: look(server, job)


def _enlist(job: str, asked: Asked) -> Callable[[Server], Coroutine[Any, Any, Asked]]:
    from scraper.frontiers.roll import enlist

    return lambda server: enlist(server, job, asked)


def find(url: str, job: str) -> Roll:
    """Return a job in Redis as it stands. Raises UsageError where there is none."""
    from scraper.frontiers.server import check_job, shown

    roll = with_redis(url, _look(check_job(job)))
    if roll is None:
        raise UsageError(f'there is no run "{job}" in {shown(url)} (`scrape jobs --frontier {shown(url)}` lists them)')
    return roll


@click.command()
@click.argument("job")
@click.option("--frontier", metavar="URL", help="The Redis of the run (the setting frontier.use).")
@click.option(
    "-o", "output", type=click.Path(), metavar="FILE", help="Write to FILE, not to the name given to the run."
)
@click.option(
    "--parts",
    "folders",
    multiple=True,
    type=click.Path(),
    metavar="DIR",
    help="Look for the parts in DIR; may be repeated.",
)
@click.option("--anyway", is_flag=True, help="Collect what is committed, though the run is still going on.")
def collect(job: str, frontier: str | None, output: str | None, folders: tuple[str, ...], anyway: bool) -> int:
    """Make one file of the parts that the workers of the run JOB wrote: each item once.

    Without --parts the parts are looked for where they were written, and below the current folder.
    """
    roll = find(redis_url(frontier), job)
    if roll.alive and roll.status != "finished" and not anyway:
        raise UsageError(f'the run "{job}" is going on ({", ".join(roll.alive)}); --anyway collects what is committed')
    chosen: dict[str, list[tuple[Path, int]]] = {}
    for worker in roll.workers:
        for name, length in worker.outputs.items():
            if length:
                part = Path(name)
                chosen.setdefault(part.parent.name.removesuffix(".parts"), []).append((_find(part, folders), length))
    if output is not None and len(chosen) > 1:
        raise UsageError(f"-o names one file, and the run has {len(chosen)}: {', '.join(chosen)}")
    if not chosen:
        raise UsageError(f'the run "{job}" has written nothing')
    if output is not None:
        _check_target(output, next(iter(chosen.values()))[0][0].suffix)
    for name, parts in chosen.items():
        size = _join(Path(output or name), parts)
        click.echo(f"{output or name}: {size:,} bytes of {len(parts)} workers")
    if roll.status != "finished":
        click.echo(f'the run "{job}" is not finished: {roll.counts.pending:,} requests are pending', err=True)
    return 0


def redis_url(given: str | None) -> str:
    """Return the Redis that an option or the settings name. Raises UsageError where they do not."""
    from scraper.frontiers.server import is_redis
    from scraper.layers import environment_layer, file_layer, find_file, merge, without_passwords

    if given is None:
        path = find_file(Path.cwd())
        given = merge([*([file_layer(path)] if path else []), environment_layer()]).frontier.use
    if not is_redis(given):
        given = without_passwords("frontier.use", given)
        raise UsageError(f"--frontier {given}: name the Redis of the run, such as redis://host:6379/0")
    return given


def _find(part: Path, folders: tuple[str, ...]) -> Path:
    homes = [Path(folder) for folder in folders] or [part.parent, Path.cwd() / part.parent.name]
    for home in homes:
        for path in (home / part.name, home / part.parent.name / part.name):
            if path.is_file():
                return path
    raise UsageError(
        f"{part.name} is missing: copy it from {part.parent} on its machine, and name the folder with --parts"
    )


def _check_target(name: str, suffix: str) -> None:
    from scraper.registry import EXPORTERS

    if name == "-":
        raise UsageError("-o -: name a file, which is written in one step")
    if Path(name).is_dir():
        raise UsageError(f"-o {name} is a folder: name a file")
    given, wrote = Path(name).suffix.lower(), suffix.lower()
    if EXPORTERS.get(given, given) != EXPORTERS.get(wrote, wrote):
        raise UsageError(f"-o {name}: the run wrote {suffix}, and that is what is put together")


def _join(target: Path, parts: list[tuple[Path, int]]) -> int:
    """Write the parts, each up to its committed length, to one file in one step; return its size."""
    draft = target.with_name(f".{target.name}.new")
    is_csv, columns = parts[0][0].suffix.lower() == ".csv", None
    try:
        with draft.open("wb") as whole:
            for path, length in parts:
                if path.stat().st_size < length:
                    raise UsageError(
                        f"{path} holds less than the {length:,} bytes its worker wrote: it was cut or replaced"
                    )
                with path.open("rb") as file:
                    if is_csv:
                        head, rows = _read_rows(file, length)
                        if columns is None:
                            columns = head
                            file.seek(0)
                        elif head == columns:
                            length -= file.tell()
                        else:
                            _write_rows(whole, columns, (dict(zip(head, row, strict=False)) for row in rows))
                            length = 0
                    while length:
                        block = file.read(min(length, _COPY_BYTES))
                        whole.write(block)
                        length -= len(block)
            size = whole.tell()
        os.replace(draft, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not as its worker wrote it: {error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return size


def _read_rows(file: IO[bytes], length: int) -> tuple[list[str], Iterator[list[str]]]:
    """Return the header of a CSV file's first ``length`` bytes, and the rows, which are read as they are taken."""

    def lines() -> Iterator[str]:
        while (left := length - file.tell()) > 0:
            yield file.readline(left).decode()

    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(lines())
    return next(rows, []), rows


def _write_rows(file: IO[bytes], columns: list[str], rows: Iterable[dict[str, str]]) -> None:
    """Write rows as the exporter of one process would: what is no column is left out, and what is missing empty."""
    writer = csv.writer(getwriter("utf-8")(file))
    writer.writerows([row.get(column, "") for column in columns] for row in rows)
