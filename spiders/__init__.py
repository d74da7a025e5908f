"""The project's spiders, one a file; ``scrape list`` shows them and ``scrape run NAME`` runs one."""
