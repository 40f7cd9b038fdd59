"""Furnished houses, generated and drawn in this process.

Begin with `env` (the environment) and `scene` (what a house is). `generation` makes houses of
`furniture` and `textures`, `rendering` draws them, `navigation` moves agents in them, and
`simulator` joins the two.
"""
