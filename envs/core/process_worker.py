"""The process around one simulator: started by file path, under any Python from 3.9 on.

It loads a simulator from a file, obeys commands from a socket, and writes observations into
memory that it shares with its parent. It needs NumPy and the standard library only, and imports
nothing of this project, because the simulator's interpreter need not have it.

A simulator file defines `make(**options)`, which returns an object with

    observation_space   {name: {"shape": [...], "dtype": "uint8", "low": 0, "high": 255}} or
                        {name: {"n": 20}} for a category, {name: {"n": [20, 3]}} for several
    action_space        {"n": 6}, {"n": [6, 2]} for several choices at once, or
                        {"shape": [2], "dtype": "float32", "low": -1, "high": 1}
    begin(trial, episode) -> (observation, info)
    step(action) -> (observation, reward, terminated, truncated, info)

and, if it likes, `expert_action()`, `close()` and any other method for its parent to call.
Observations are dicts of arrays; `info` is a dict of numbers.
"""

from __future__ import annotations

import base64
import fcntl
import importlib.util
import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import traceback
from typing import Any

import numpy as np

_KINDS = {"f": "fiub", "i": "iub", "u": "iub"}
"""Kinds of numbers that an array of each kind can take over as they are."""

Layout = dict[str, tuple[int, list[int], str]]
"""Shared arrays by name: offset in the file, shape with the rows first, dtype."""


def _encode_value(value: Any) -> Any:
    """Turn what JSON does not know into what it knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"__array__": [value.dtype.str, list(value.shape), data]}
    raise TypeError(f"a message must hold numbers, strings, lists, dicts or arrays, got {value!r}")


def _decode_value(value: dict[str, Any]) -> Any:
    """Turn an encoded array back."""
    if "__array__" not in value:
        return value
    dtype, shape, data = value["__array__"]
    # Copied, as an array over bytes is read-only.
    return np.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape).copy()


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as bytes with its length in front. No pickles: versions may differ."""
    body = json.dumps(message, default=_encode_value).encode()
    return struct.pack("<Q", len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """Return the message in the bytes after the length."""
    return json.loads(body.decode(), object_hook=_decode_value)


def receive(control: socket.socket) -> dict[str, Any] | None:
    """Wait for the next message; None if the other side is gone."""
    head = _read(control, 8)
    if head is None:
        return None
    body = _read(control, struct.unpack("<Q", head)[0])
    return None if body is None else decode(body)


def _read(control: socket.socket, count: int) -> bytes | None:
    """Read exactly so many bytes; None if the other side is gone."""
    parts = []
    while count:
        # A message may come in parts of any size.
        part = control.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def map_arrays(memory: int, layout: Layout) -> dict[str, np.ndarray]:
    """Return the shared arrays, rows first.

    Args:
        memory: descriptor of the shared file, which is large enough.
        layout: where they lie in it.
    """
    shared = mmap.mmap(memory, 0)
    arrays = {}
    for name, (offset, shape, dtype) in layout.items():
        count = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(shared, dtype=dtype, count=count, offset=offset)
        arrays[name] = flat.reshape(shape)
    return arrays


def misfit(array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> str | None:
    """Say what would be bent if an array were copied into one of this shape and dtype.

    Numbers may be rounded to a shorter float, and nothing else: no other shape, no fraction or
    text in whole numbers, nothing beyond what the dtype can hold.

    Args:
        array: What a simulator or an environment shows.
        shape: Of the space.
        dtype: Of the space.

    Returns:
        The rule and what was got instead; None if all is well.
    """
    if array.shape != shape:
        return f"must have shape {shape}, as its space has, got {array.shape}"
    if array.dtype == dtype:
        return None
    if array.dtype.kind not in _KINDS.get(dtype.kind, dtype.kind):
        return f"must hold {dtype}, as its space does, got {array.dtype}"
    if not array.size or dtype.kind == "b":
        return None
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    if finite.size and (finite.min() < limits.min or finite.max() > limits.max):
        return f"must fit into {dtype}, got numbers from {finite.min()} to {finite.max()}"
    return None


def load_simulator(path: str, options: dict[str, Any]) -> Any:
    """Load a simulator file as a script would be, and make its simulator."""
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"the simulator must be a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.make(**options)


class ShowError(ValueError):
    """A simulator shows what its observation space does not allow."""


class Host:
    """Holds the simulator and carries out commands."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.simulator: Any = None
        self.slots: dict[str, np.ndarray] = {}

    def make(self, path: str, options: dict[str, Any]) -> dict[str, Any]:
        """Make the simulator and describe it."""
        self.simulator = load_simulator(path, options)
        return {
            "observation": self.simulator.observation_space,
            "action": self.simulator.action_space,
            "methods": [name for name in dir(self.simulator) if not name.startswith("_")],
        }

    def attach(self, layout: Layout, row: int) -> None:
        """Map the shared arrays; this worker writes its own row only."""
        self.slots = {
            name: array[row : row + 1].reshape(array.shape[1:])
            for name, array in map_arrays(self.memory, layout).items()
        }

    def call(self, method: str, args: Any) -> Any:
        """Call a method of the simulator and return what it returned."""
        return getattr(self.simulator, method)(*args)

    def show(self, method: str, args: Any) -> Any:
        """Call a method that returns an observation first; share that and return the rest."""
        observation, *rest = self.call(method, args)
        if not isinstance(observation, dict) or observation.keys() != self.slots.keys():
            got = sorted(observation) if isinstance(observation, dict) else type(observation)
            raise ShowError(
                f"the observation must be a dict with the keys {sorted(self.slots)}, got {got}"
            )
        for name, slot in self.slots.items():
            array = np.asarray(observation[name])
            if array.dtype.kind == slot.dtype.kind == "f":
                # What is too large becomes infinite, for the parent to count it as a crash.
                with np.errstate(over="ignore"):
                    array = array.astype(slot.dtype)
            fault = misfit(array, slot.shape, slot.dtype)
            if fault:
                raise ShowError(f"observation[{name!r}] {fault}")
            slot[...] = array
        return rest


def serve(control: socket.socket, memory: int) -> None:
    """Obey until the parent hangs up or says `close`."""
    host = Host(memory)
    while True:
        message = receive(control)
        if message is None or message["command"] == "close":
            break
        reply = {"id": message["id"]}
        try:
            reply["value"] = getattr(host, message["command"])(**message["arguments"])
            # In here, as a value that no message can hold is the simulator's error, too.
            data = encode(reply)
        except ShowError as error:  # of no use to start again: it would show the same
            data = encode({"id": message["id"], "refused": str(error)})
        except Exception:
            data = encode({"id": message["id"], "error": traceback.format_exc()})
        control.sendall(data)
    if hasattr(host.simulator, "close"):
        host.simulator.close()


def die_with_parent(lifeline: int) -> None:
    """Exit when the parent, who alone holds the other end of this pipe, is gone.

    A thread waits for that. A simulator that is stuck in native code may never let the thread
    run; where the kernel can, it is told to kill the process itself.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)

    def wait() -> None:
        os.read(lifeline, 1)
        # `sys.exit` would end this thread alone.
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Run a worker on descriptors that the parent handed down."""
    control, lifeline, memory = (int(argument) for argument in sys.argv[1:])
    die_with_parent(lifeline)
    serve(socket.socket(fileno=control), memory)


if __name__ == "__main__":
    main()
