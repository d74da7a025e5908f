"""The ``scrape`` command: one module a family of commands; exit statuses; the only place that prints.

Heavy imports stand inside the functions that need them, so that ``scrape --help`` and completion answer at once.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

import click

from scraper.cli.demo import demo, version
from scraper.cli.fleet import collect
from scraper.cli.jobs import jobs
from scraper.cli.look import fetch, parse, shell
from scraper.cli.project import genspider, init, list_spiders, settings
from scraper.cli.run import run
from scraper.errors import UsageError
from scraper.log import safe

OK, BROKEN, USAGE, INTERRUPTED = 0, 1, 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Crawl web sites and keep what you find.

    \b
    scrape init shop && cd shop            make a project
    scrape genspider books https://…       make a spider
    scrape run books -O books.jsonl        run it
    """


for command in (run, list_spiders, init, genspider, shell, fetch, parse, settings, jobs, collect, demo, version):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line and exit with its status: 0, 1 broken, 2 usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = cli.main(prog_name="scrape", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "scrape"
        status = _complain(f"{error.format_message().rstrip('.')} (see {where} --help)")
    except click.ClickException as error:
        status = _complain(error.format_message())
    except UsageError as error:
        status = _complain(str(error))
    except (KeyboardInterrupt, click.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; leave nothing for Python to flush into the closed pipe.
        sys.stdout = None
        status = BROKEN
    sys.exit(status or OK)


def _interrupt(*_: object) -> NoReturn:
    """Have SIGTERM end the program like Ctrl-C, until a run takes both over."""
    raise KeyboardInterrupt


def _complain(message: str) -> int:
    print(f"scrape: {safe(' '.join(message.split()))}", file=sys.stderr)
    return USAGE
