"""The ``scrape`` command: one module a family of commands; exit statuses; the only place that prints.

Heavy imports stand inside the functions that need them, so that ``scrape --help`` and completion answer at once.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

import click

from scraper.cli.demo import demo, version
from scraper.cli.fleet import collect
from scraper.cli.jobs import jobs
from scraper.cli.look import fetch, parse, shell
from scraper.cli.project import genspider, init, list_spiders, settings
from scraper.cli.run import run
from scraper.errors import UsageError
from scraper.log import safe, to_stderr

OK, BROKEN, USAGE, INTERRUPTED = 0, 1, 2, 130
_UNWRITABLE = frozenset({errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC})


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
    _open_streams()
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
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename is None:  # of os.getcwd() alone
            sys.exit(_complain("the current folder is not there any more"))
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        _complain(f"cannot write to standard output: {error.strerror}")
        sys.stdout = None
        status = BROKEN
    if status == INTERRUPTED:
        _leave_threads()
    sys.exit(status or OK)


def _leave_threads() -> None:
    """End the program at once where a thread of a spider's still runs, for Python would wait for it, be it for ever."""
    if any(not each.daemon for each in threading.enumerate() if each is not threading.main_thread()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(INTERRUPTED)


def _interrupt(*_: object) -> NoReturn:
    """Have SIGTERM end the program like Ctrl-C, until a run takes both over."""
    raise KeyboardInterrupt


def _open_streams() -> None:
    """Put something in the place of standard streams that are closed, or a file of the run's would get their number.

    What is written to standard error is lost then; writing to standard output fails.
    """
    if sys.stdin is None:
        sys.stdin = open(os.open(os.devnull, os.O_RDONLY))  # noqa: SIM115
    if sys.stdout is None:
        # Unbuffered, or Python would try to write it once more at the end.
        file = open(os.open(os.devnull, os.O_RDONLY), "wb", buffering=0)  # noqa: SIM115
        sys.stdout = io.TextIOWrapper(file, write_through=True)
    if sys.stderr is None:
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w")  # noqa: SIM115


def _complain(message: str) -> int:
    to_stderr(f"scrape: {safe(' '.join(message.split()))}")
    return USAGE
