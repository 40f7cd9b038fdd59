"""Leaves out, while tests are collected, what needs a package that is not installed."""

from importlib.util import find_spec

NEEDED = {"cluster": "ray", "envs/houses/test_cuda.py": "numba_cuda"}
collect_ignore = [path for path, package in NEEDED.items() if find_spec(package) is None]
