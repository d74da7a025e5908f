"""``python -m scraper``: the ``scrape`` command."""

from scraper.cli import main

main()
