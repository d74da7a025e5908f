"""``python -m scraper``, which is the ``scrape`` command."""

import signal
import sys
import threading


def main() -> None:
    """Run the command line; a Ctrl-C while it is still being imported ends it like a later one, and none comes too late."""
    try:
        from scraper.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if threading.active_count() == 1:  # or else something may hang, which Ctrl-C is to end
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
