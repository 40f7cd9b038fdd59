"""Attention with sinks; `attend` is the one function, the other files are its backends."""
