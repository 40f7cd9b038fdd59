"""The task ExtObjNav, free of any simulator. `rules` is where to begin."""
