"""YAML of files and command lines, of a size that was meant."""

from __future__ import annotations

from typing import Any, Final

import yaml

MOST_BYTES: Final = 1 << 20
"""Of a YAML file; a configuration has thousands."""
MOST_NODES: Final = 100_000
"""Values of a YAML file, with what aliases stand for."""


def parse_yaml(text: str, loader: type[yaml.SafeLoader | yaml.BaseLoader] = yaml.SafeLoader) -> Any:
    """Parse YAML that stays small: aliases can make a short text a tree without end.

    Raises:
        yaml.YAMLError: If it is no YAML, too large, or says a key twice, of which YAML itself drops
            one.
    """
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"it has {len(text)} characters, more than {MOST_BYTES}")
    reader = loader(text)
    try:
        root = reader.get_single_node()
        if root is None:
            return None
        if _size_of(root, {}) > MOST_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES} values")
        return reader.construct_document(root)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    finally:
        reader.dispose()


def _size_of(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # of one that holds itself
        if isinstance(node, yaml.MappingNode):
            _refuse_twins(node)
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = [n for part in parts for n in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size_of(n, known) for n in nodes)
    return known[id(node)]


def _refuse_twins(node: yaml.MappingNode) -> None:
    """Refuse a mapping that has a key twice."""
    seen = set()
    for key, _ in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name in seen:
            raise yaml.YAMLError(f"the key {name!r} stands in it twice")
        if name not in (None, "<<"):  # several mappings may be laid over
            seen.add(name)
