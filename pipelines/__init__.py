"""The project's own pipelines, listed in settings.toml in the order in which items pass them."""
