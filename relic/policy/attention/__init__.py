"""Attention with sinks: `attend` is the one function, `inputs` says what its backends take.

`sinks` holds the learned keys and values, and says where they enter attention.
"""
