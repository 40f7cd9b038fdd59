"""Attention with sinks: `attend` is the one function, `inputs` says what its backends take."""
