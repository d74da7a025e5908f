"""``scrape jobs``: the runs there were, how they stand, what failed in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from scraper.cli.options import shown
from scraper.errors import StateError, UsageError
from scraper.log import safe

if TYPE_CHECKING:
    from scraper.jobs import Job

_SHOWN_URLS = 3


@click.group(invoke_without_command=True)
@click.option("--frontier", metavar="URL", help="The runs in this Redis, not those of the project's folder.")
@click.pass_context
def jobs(context: click.Context, frontier: str | None) -> int:
    """List the project's runs, the newest first, with their counts."""
    context.obj = frontier
    if context.invoked_subcommand is not None:
        return 0
    if frontier is not None:
        return _list_shared(frontier)
    from scraper.jobs import all_jobs
    from scraper.loader import project_root

    root = project_root(Path.cwd())
    rows: list[tuple[str, ...]] = [("RUN", "STATUS", "SEEDED", "DONE", "FAILED", "PENDING", "ITEMS")]
    for job in all_jobs(root):
        try:
            counts, items, _ = _state(job)
            status = _status(job)
        except UsageError:
            counts, items, status = {}, 0, "damaged"
        numbers = [f"{counts.get(name, 0):,}" for name in ("seeded", "done", "failed", "pending")]
        rows.append((_label(job), status, *numbers, f"{items:,}"))
    if len(rows) == 1:
        click.echo(f"no runs in {root}")
        return 0
    _show_table(rows)
    return 0


def _list_shared(url: str) -> int:
    """List the runs that a Redis holds."""
    from scraper.cli.fleet import redis_url, with_redis
    from scraper.frontiers.roll import all_jobs

    rolls = with_redis(redis_url(url), all_jobs)
    rows: list[tuple[str, ...]] = [("RUN", "STATUS", "SEEDED", "DONE", "FAILED", "PENDING", "ITEMS", "WORKERS")]
    for roll in rolls:
        numbers = (roll.counts.seeded, roll.counts.done, roll.counts.failed, roll.counts.pending, roll.items)
        rows.append((roll.job, roll.status, *(f"{number:,}" for number in (*numbers, len(roll.alive)))))
    _show_table(rows)
    return 0


def _show_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        click.echo("  ".join([*texts, *numbers]))


@jobs.command()
@click.argument("name")
@click.pass_obj
def show(frontier: str | None, name: str) -> int:
    """Show one run: a spider's name (its newest run), SPIDER/TIME as listed, or a folder."""
    from scraper.layers import without_passwords

    if frontier is not None:
        return _show_shared(frontier, name)
    job = _find(name)
    if job.damage is not None:
        raise job.damage
    counts, items, failures = _state(job)
    asked = job.asked
    click.echo(f"{_label(job)}: {_status(job)}, begun {asked.began}, in {job.path}")
    for key, value in asked.arguments.items():
        click.echo(safe(f"  argument  {key}={value}"))
    for option in asked.options:
        setting, _, value = option.partition("=")
        click.echo(safe(f"  setting   {setting}={without_passwords(setting.strip(), value)}"))
    for output, _ in asked.outputs:
        click.echo(f"  output    {output}")
    for key in ("seeded", "done", "failed", "pending", "filtered"):
        click.echo(f"  {key:<9} {counts.get(key, 0):>12,}")
    click.echo(f"  items     {items:>12,}")
    for reason, urls in _reasons(failures):
        click.echo(safe(f"  failed {len(urls):,} × {reason}"))
        for url in urls[:_SHOWN_URLS]:
            click.echo(safe(f"    {url}"))
        if len(urls) > _SHOWN_URLS:
            click.echo(f"    … and {len(urls) - _SHOWN_URLS:,} more")
    if failures:
        target = quote(shown(asked.target or asked.spider))
        click.echo(f"  to try these again: scrape run {target} --job {quote(str(job.path))} --retry-failed")
    return 0


@jobs.command()
@click.argument("name")
@click.pass_obj
def remove(frontier: str | None, name: str) -> int:
    """Remove one run's state: a spider's name (its newest run), SPIDER/TIME as listed, or a folder."""
    if frontier is not None:
        return _remove_shared(frontier, name)
    job = _find(name)
    label = _label(job)
    job.remove()
    click.echo(f"removed the run {label}")
    return 0


def _show_shared(url: str, name: str) -> int:
    from scraper.cli.fleet import find, redis_url

    roll = find(redis_url(url), name)
    click.echo(f"{roll.job}: {roll.status}, spider {roll.asked.spider}, begun {roll.asked.began}")
    for key, value in roll.asked.arguments.items():
        click.echo(safe(f"  argument  {key}={value}"))
    for key in ("seeded", "done", "failed", "pending", "filtered"):
        click.echo(f"  {key:<9} {getattr(roll.counts, key):>12,}")
    click.echo(f"  items     {roll.items:>12,}")
    for worker in roll.workers:
        click.echo(f"  worker    {worker.name}: {worker.items:,} items{'' if worker.is_alive else ', gone'}")
        for output, length in worker.outputs.items():
            click.echo(f"    {output}: {length:,} bytes")
    return 0


def _remove_shared(url: str, name: str) -> int:
    from scraper.cli.fleet import find, redis_url, with_redis
    from scraper.frontiers import roll

    url = redis_url(url)
    alive = find(url, name).alive
    if alive:
        raise UsageError(f'the run "{name}" is going on: {", ".join(alive)}')
    with_redis(url, lambda server: roll.remove(server, name))
    click.echo(f"removed the run {name}")
    return 0


def _find(name: str) -> Job:
    from scraper.jobs import FOLDER, all_jobs, find_job
    from scraper.loader import project_root

    root = project_root(Path.cwd())
    newest = next(iter(all_jobs(root, name)), None) if "/" not in name else None
    for path in (root / FOLDER / name, Path(name).absolute()):
        newest = newest or find_job(path)
    if newest is None:
        raise UsageError(f'there is no run "{name}" (`scrape jobs` lists what there is)')
    return newest


def _state(job: Job) -> tuple[dict[str, int], int, list[tuple[bytes, str]]]:
    """Return a job's counts, items and failures: from its state where there is some, else from its summary."""
    from scraper.frontiers.store import look

    counts: Counter[str] = Counter()
    items, failures, is_there = 0, list[tuple[bytes, str]](), False
    for path in job.states:
        if path.exists():
            is_there = True
            try:
                meta, failed = look(path)
            except StateError as error:
                raise UsageError(str(error)) from None
            stats: dict[str, Any] = meta.get("state.stats", {})
            items += stats.get("items", 0)
            failures += failed
            counts.update(meta.get("counts", {}))
            waiting = meta.get("state.shards", {}).get("waiting", 0)  # on their way to another shard
            counts.update(seeded=waiting, pending=waiting)
    if is_there:
        return counts, items, failures
    return job.asked.summary, job.asked.summary.get("items", 0), []


def _reasons(failures: list[tuple[bytes, str]]) -> list[tuple[str, list[str]]]:
    """Group the failures by what happened, the most frequent first; the URL at the end of a reason is left out."""
    from scraper.frontiers.codec import decode

    groups: dict[str, list[str]] = {}
    for data, error in failures:
        url = decode(data).url
        groups.setdefault(error.removesuffix(f": {url}"), []).append(url)
    order = Counter({reason: len(urls) for reason, urls in groups.items()})
    return [(reason, groups[reason]) for reason, _ in order.most_common()]


def _status(job: Job) -> str:
    reason = job.asked.reason
    return f"{job.status} ({reason})" if job.status == "unfinished" and reason else job.status


def _label(job: Job) -> str:
    return f"{job.path.parent.name}/{job.path.name}" if job.path.parent.name == job.asked.spider else str(job.path)
