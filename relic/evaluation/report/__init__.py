"""Everything that draws or writes an evaluation: pages, plots, replays, videos."""
