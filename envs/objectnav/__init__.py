"""The task ExtObjNav, free of any simulator. `rules` is where to begin.

`rows` keeps the running episodes of many rows, `goals` lists what is asked for.
"""
