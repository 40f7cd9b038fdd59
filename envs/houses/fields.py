"""Distance fields that are kept within a byte bound, and a thread that computes them ahead of need.

A field is a pure function of its key, so what is kept and who computed it changes speed only.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol
from weakref import ref

from envs.houses.navigation import FloatGrid
from envs.objectnav import Goal

FieldKey = tuple[Hashable, Goal]
"""The scene and what is looked for in it."""


class FieldCache:
    """Distance fields, the least recently used of which make room for new ones."""

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes`, and always the newest field."""
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._fields: OrderedDict[FieldKey, FloatGrid] = OrderedDict()
        self._lock = threading.RLock()  # as a place may die, and drop its fields, at any time

    def __len__(self) -> int:
        """Count the fields."""
        return len(self._fields)

    def get(self, key: FieldKey, compute: Callable[[], FloatGrid]) -> FloatGrid:
        """Return the field of a key, computing it if it is not here."""
        with self._lock:
            field = self._fields.get(key)
            if field is not None:
                self._fields.move_to_end(key)
                return field
        field = compute()
        with self._lock:
            if key not in self._fields:
                self._fields[key] = field
                self.num_bytes += field.nbytes
            while self.num_bytes > self.max_bytes and len(self._fields) > 1:
                self.num_bytes -= self._fields.popitem(last=False)[1].nbytes
        return field

    def drop(self, scene: Hashable) -> None:
        """Forget the fields of a scene."""
        with self._lock:
            for key in [k for k in self._fields if k[0] == scene]:
                self.num_bytes -= self._fields.pop(key).nbytes

    def has_room(self) -> bool:
        """Tell whether one more field would most likely drive out no other."""
        with self._lock:
            mean = self.num_bytes / max(len(self._fields), 1)
            return self.num_bytes + 2.0 * mean <= self.max_bytes


class FieldSource(Protocol):
    """What fields are computed from."""

    def field(self, goal: Goal) -> FloatGrid:
        """Return the field of a goal."""
        ...


class FieldPrefetcher:
    """Computes fields on a thread of its own while others draw."""

    def __init__(self, cache: FieldCache) -> None:
        """Start the thread. It fills the cache as long as there is room."""
        self._cache = cache
        self._wanted: queue.SimpleQueue[tuple[ref[Any], Goal] | None] = queue.SimpleQueue()
        # A daemon, so that a program which forgets to close an environment ends at once.
        threading.Thread(target=self._work, name="fields", daemon=True).start()

    def want(self, source: FieldSource, goals: list[Goal]) -> None:
        """Ask for fields that are likely to be needed, unless the source is gone by then."""
        for goal in goals:
            self._wanted.put((ref(source), goal))

    def close(self) -> None:
        """End the thread once it has answered what was asked before."""
        self._wanted.put(None)

    def _work(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            source = wanted[0]()
            if source is not None and self._cache.has_room():
                source.field(wanted[1])
            del source  # which must not live on while the thread waits
