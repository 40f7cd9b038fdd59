"""Configurations, composed by Hydra; the fields and their meaning are in `relic.run.config`."""
