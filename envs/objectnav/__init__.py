"""The task ExtObjNav, free of any simulator: rules, configuration, rows."""
