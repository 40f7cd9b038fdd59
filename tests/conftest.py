"""Leaves out, while tests are collected, what needs a package that is not installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("ray") else ["cluster"]
