"""Environments whose rows live in trials: houses, Darkroom, FourBoxes, and any Gymnasium env.

Importing this package registers them with Gymnasium. Nothing here imports `relic`.
"""
