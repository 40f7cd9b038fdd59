"""Configurations as files; their fields and meaning are in `relic.run.config`."""
