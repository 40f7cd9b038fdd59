"""Colours and pattern tiles of surfaces: `palette` draws a house's, `atlas` gathers the tiles."""
