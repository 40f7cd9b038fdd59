"""Colours and pattern tiles of surfaces; `atlas` gathers the tiles."""
