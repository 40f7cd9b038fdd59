"""Everything that draws or writes an evaluation: pages, plots, replays, videos.

Begin with `page`, the report of one evaluation; `side_by_side` has that of several.
"""
