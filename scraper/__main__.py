"""``python -m scraper``, which is the ``scrape`` command."""

import sys


def main() -> None:
    """Run the command line; a Ctrl-C while it is still being imported ends it like a later one."""
    try:
        from scraper.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
