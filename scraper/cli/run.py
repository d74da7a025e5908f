"""``scrape run``: one crawl, its signals, its progress, its summary and its exit status."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from scraper.cli.options import arguments_option, as_options, complete_spider, parse_arguments, settings_option, shown
from scraper.cli.session import check_stats_file, prints_aside, supervised, without_limit, write_stats
from scraper.errors import OutputError, UsageError

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from scraper.cli.progress import Progress
    from scraper.crawler import Crawler, Output, Result
    from scraper.jobs import Job
    from scraper.log import Log
    from scraper.settings import Settings
    from scraper.shards.supervisor import Shards
    from scraper.spider import Spider


@click.command(add_help_option=False)
@click.argument("spider", required=False, shell_complete=complete_spider)
@arguments_option
@settings_option
@click.option(
    "-o",
    "appended",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Append items to FILE (.jsonl, .csv; - is stdout).",
)
@click.option(
    "-O",
    "replaced",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Write items to FILE, replacing what it holds.",
)
@click.option(
    "--frontier",
    metavar="F",
    help="Where requests wait: memory, sqlite or redis://host/0, which many machines share (the setting frontier.use).",
)
@click.option(
    "--job",
    "job_dir",
    type=click.Path(),
    metavar="DIR",
    help="Keep the run's state in DIR; go on with what is unfinished there. With a Redis: the NAME of the crawl to join.",
)
@click.option("--resume", is_flag=True, help="Go on with the newest unfinished run of SPIDER.")
@click.option("--retry-failed", is_flag=True, help="With --resume or --job: try the failed requests again.")
@click.option(
    "--shards",
    metavar="N",
    help="Share the run among N processes; auto: as many as there are processors (the setting shards.count).",
)
@click.option(
    "--stats",
    "stats_file",
    type=click.Path(),
    metavar="FILE",
    help="Write the summary to FILE (- is stdout) as one JSON object.",
)
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
    with prints_aside("-" in (*options["appended"], *options["replaced"], options["stats_file"])):
        return _run(spider, **options)


def _run(target: str, *, demo: bool, quiet: bool, stats_file: str | None, retry_failed: bool, **given: Any) -> int:
    import gc

    # Imports make no cyclic garbage: without the collector they take about a tenth less of the start-up time.
    gc.disable()
    if given["shards"] not in (None, "1"):
        from scraper.shards.forkserver import prepare

        with suppress(OSError):  # it is told when a shard is to be started
            prepare()
    from scraper.cli.progress import make_progress
    from scraper.crawler import Crawler, calm_collector, load_settings, run_in_loop
    from scraper.exporters.files import place_of
    from scraper.frontiers.server import is_redis
    from scraper.layers import option_layer
    from scraper.loader import load_spider
    from scraper.log import Log, take_over
    from scraper.spider import make_spider

    cls = load_spider(target, Path.cwd())
    if is_redis(load_settings(cls, [option_layer(as_options(given))]).frontier.use):
        from scraper.cli.fleet import join

        return join(cls, target, demo=demo, quiet=quiet, stats_file=stats_file, retry_failed=retry_failed, **given)
    job = _find_job(cls.name, retry_failed=retry_failed, **given)
    is_resumed = bool(job.asked.began)
    asked = job.asked
    asked.target = str(Path(target).absolute()) if target.endswith(".py") else target
    asked.arguments |= parse_arguments(given["arguments"])
    asked.options += as_options(given)
    settings = load_settings(cls, [option_layer(asked.options)])
    outputs = _outputs(asked.outputs, given["appended"], given["replaced"])
    asked.outputs = [(output.name, output.replace) for output in outputs]
    new_files = [Path(output.name) for output in outputs if output.name != "-" and not Path(output.name).exists()]
    if stats_file is not None:
        if stats_file != "-" and place_of(stats_file) in (place_of(output.name) for output in outputs):
            raise UsageError(f"{stats_file} is named twice: as an output and for --stats, which would replace it")
        check_stats_file(stats_file)
    spider = make_spider(cls, asked.arguments)
    in_memory = settings.frontier.use == "memory"
    _settle_shards(job, settings, is_resumed)
    if in_memory and (is_resumed or given["resume"] or given["job_dir"] is not None):
        raise UsageError('a run with frontier.use = "memory" keeps no state: there is nothing to resume')
    progress = make_progress(settings.log.format, quiet, items_on_stdout=any(each.name == "-" for each in outputs))
    level = "error" if quiet else settings.log.level
    log = Log(level, "json" if settings.log.format == "json" else "console", progress.write)
    take_over(log)

    has_begun = False
    result: Result | None = None

    async def main() -> None:
        from contextlib import AsyncExitStack

        nonlocal has_begun, result
        calm_collector()
        async with AsyncExitStack() as stack:
            base = await _start_at_demo(spider, job, stack) if demo or asked.demo_port else ""
            crawler: Crawler | Shards
            if asked.shards > 1:
                crawler = _make_shards(job, spider, settings, target, outputs, level, log, progress, base)
            else:
                crawler = Crawler(spider, settings, outputs=outputs, state=None if in_memory else job.path, log=log)
            has_begun = True
            result = await supervised(crawler, progress, retry_failed)

    if not in_memory:
        job.acquire()
        if not is_resumed:
            job.begin()
    is_hurried = False
    try:
        run_in_loop(main())
    except (UsageError, KeyboardInterrupt) as error:
        # From its begin to its end the crawl takes signals itself: this one came while its users' threads were waited for.
        is_hurried = has_begun and isinstance(error, KeyboardInterrupt)
        if not is_hurried:
            if not in_memory and not is_resumed:
                job.remove()
            for path in new_files:
                path.unlink(missing_ok=True)
        if not is_hurried or result is None:
            raise
    assert result is not None
    status = _conclude(result, None if in_memory else job, target, progress, stats_file, given["job_dir"])
    if is_hurried:
        sys.stdout.flush()
        os._exit(status)  # Python would wait for the threads, too
    return status


def _conclude(
    result: Result, job: Job | None, target: str, progress: Progress, stats_file: str | None, job_dir: str | None
) -> int:
    """Note how a run ended in its job, where it has one, and tell it; return the exit status."""
    if job is not None:
        try:
            job.end(result.reason, result.stats)
        except UsageError as error:
            if not result.broken:
                print(f"scrape: {error}", file=sys.stderr)
            result.broken = True
        job.release()
    progress.end(result, [shown(name) for name in result.written])
    if stats_file is not None:
        write_stats(stats_file, result)
    if result.reason != "finished" and result.stats["pending"] and job is not None:
        progress.note(f"to go on: scrape run {quote(target)} {_resume_option(job_dir)}{without_limit(result.reason)}")
    return 130 if result.reason == "interrupted" else 1 if result.broken else 0


def _settle_shards(job: Job, settings: Settings, is_resumed: bool) -> None:
    """Note among how many shards the run is divided; one that goes on stays as it was begun. Raises UsageError."""
    asked, count = job.asked, settings.shards.count
    if count == "auto":
        count = (
            asked.shards
            if is_resumed
            else len(os.sched_getaffinity(0))
            if sys.platform == "linux"
            else os.cpu_count() or 1
        )
    if is_resumed:
        if (count, settings.shards.by) != (asked.shards, asked.by) and max(count, asked.shards) > 1:
            option = f"--shards {asked.shards}" + (
                f" -s shards.by={asked.by}" if asked.by != settings.shards.by else ""
            )
            raise UsageError(
                f"the run in {job.path} was begun with other shards; go on with {option}, or begin a new run"
            )
        return
    if count > 1 and settings.frontier.use == "memory":
        raise UsageError('shards need a frontier on disk: leave out --shards, or frontier.use = "memory"')
    asked.shards, asked.by = count, settings.shards.by


def _make_shards(
    job: Job,
    spider: Spider,
    settings: Settings,
    target: str,
    outputs: list[Output],
    level: str,
    log: Log,
    progress: Progress,
    base: str,
) -> Shards:
    from scraper.shards.supervisor import Shards
    from scraper.shards.worker import Plan

    asked = job.asked
    plan = Plan(
        0,
        asked.shards,
        asked.by,
        target,
        asked.arguments,
        asked.options,
        "",
        bool(outputs),
        level,
        "json" if settings.log.format == "json" else "console",
        base,
        prints_aside=any(output.name == "-" for output in outputs),
    )
    return Shards(
        spider,
        settings,
        plan,
        folder=job.path,
        folders=job.shards,
        outputs=outputs,
        log=log,
        write=progress.write,
    )


def _find_job(name: str, *, resume: bool, job_dir: str | None, retry_failed: bool, **_: Any) -> Job:
    """Return the job to run: a new one, or the unfinished one that the options name."""
    from scraper.jobs import Asked, Job, all_jobs, new_job, read_job
    from scraper.loader import project_root

    def may_go_on(job: Job) -> bool:
        return not job.asked.finished or (retry_failed and job.asked.summary.get("failed", 0) > 0)

    if retry_failed and not resume and job_dir is None:
        raise UsageError("--retry-failed goes with --resume or --job DIR: it needs a run that had failures")
    root = project_root(Path.cwd())
    if job_dir == "":  # a variable of a script that is not set; it would be the current folder
        raise UsageError("--job: no folder is named")
    if job_dir is not None:
        path = Path(job_dir).absolute()
        job = read_job(path)
        if job is not None and job.asked.spider != name:
            raise UsageError(f'{job_dir} holds a run of the spider "{job.asked.spider}", not "{name}"')
        if job is not None and may_go_on(job):
            return job
        if resume:
            raise UsageError(f"there is no unfinished run in {job_dir}")
        return Job(path, Asked(name))
    if resume:
        for job in all_jobs(root, name):
            if may_go_on(job):
                return job
        raise UsageError(f'there is no unfinished run of "{name}" to resume (`scrape jobs` lists what there is)')
    return new_job(root, Asked(name))


def _resume_option(job_dir: str | None) -> str:
    return "--resume" if job_dir is None else f"--job {quote(job_dir)}"


def _outputs(former: list[tuple[str, bool]], appended: tuple[str, ...], replaced: tuple[str, ...]) -> list[Output]:
    """Return the outputs, checked: each has a format, can be written, and is named once.

    ``former`` are those of the run that is resumed; naming one of them again changes nothing.
    """
    from scraper.crawler import Output
    from scraper.exporters.files import check_writable, place_of
    from scraper.registry import exporter_for

    outputs = [Output(name, replace) for name, replace in former]
    known = {place_of(output.name) for output in outputs}
    named: set[str] = set()
    for name, replace in [(name, False) for name in appended] + [(name, True) for name in replaced]:
        if place_of(name) in named:
            raise UsageError(f"{name} is named twice as an output")
        named.add(place_of(name))
        try:
            exporter_for(name)
            check_writable(name)
        except OutputError as error:
            raise UsageError(str(error)) from None
        if place_of(name) not in known:
            outputs.append(Output(name if name == "-" else str(Path(name).absolute()), replace))
    return outputs


async def _start_at_demo(spider: Spider, job: Job, stack: AsyncExitStack) -> str:
    """Serve the demo for the run's length, on the port it had before, and have the spider start there; return its address."""
    from scraper.demo.bookshop import serve
    from scraper.demo.start import start_at
    from scraper.urls import host_of

    try:
        base = await stack.enter_async_context(serve(port=job.asked.demo_port))
    except OSError as error:
        raise UsageError(f"the demo cannot be served on port {job.asked.demo_port} again: {error.strerror}") from None
    job.asked.demo_port = int(host_of(base).rpartition(":")[2])
    if job.asked.began:
        job.save()
    start_at(spider, base)
    return base


def _arguments_help(target: str) -> str:
    from scraper.loader import load_spider
    from scraper.spider import arguments_of

    cls = load_spider(target, Path.cwd())
    known = arguments_of(cls).values()
    if not known:
        return f'\nThe spider "{cls.name}" takes no arguments.'
    lines = [f'\nArguments of "{cls.name}" (-a NAME=VALUE):']
    for each in known:
        default = "required" if each.required else f"default {_as_typed(each.default)}"
        lines.append(f"  {each.name + ': ' + each.type_name:<32} {default}")
    return "\n".join(lines)


def _as_typed(value: Any) -> str:
    """Return a default as one would type it behind ``-a NAME=``."""
    from enum import Enum

    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, (list, tuple)):
        return ",".join(map(_as_typed, value)) or "empty"
    return str(value) or '""'
