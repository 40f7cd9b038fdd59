"""Policies on disk: `policy.safetensors` and `policy.json`, which hold all that acting takes.

Loading executes no code and needs neither the run's configuration nor the files of pretrained
encoders: frozen weights are saved with the others. What else a training run saves is not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from gymnasium import spaces

from relic.files import is_intact, parse_json, write_sealed
from relic.policy.config import PolicyConfig
from relic.policy.policy import Policy
from relic.policy.weights import (
    CheckpointError,
    SizeGuard,
    count_weights,
    load_weights,
    naming,
    read_json,
    read_weights,
    write_weights,
)
from relic.schema import ConfigError, build, choice, convert, nearest, to_plain
from relic.shipped import located
from relic.upgrade import upgrade_policy, upgrade_weights


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """Return a space as plain data.

    Raises:
        TypeError: If there is no rule for its kind.
    """
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {k: space_to_json(s) for k, s in space.spaces.items()}}
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.Discrete):
        return {
            "type": "Discrete",
            "n": int(space.n),
            "start": int(space.start),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": np.asarray(space.n).tolist()}
    raise TypeError(
        f"space: must be Dict, Box, Discrete, MultiDiscrete or MultiBinary, got {space}. "
        "Leave it out of the observations."
    )


def space_from_json(data: Mapping[str, Any]) -> spaces.Space:
    """Return the space that `space_to_json` wrote.

    Raises:
        KeyError: If an entry is missing.
        ValueError: If the kind is unknown.
    """
    kind = data["type"]
    if kind == "Dict":
        # Pairs keep their order, a plain dict would be sorted.
        return spaces.Dict([(k, space_from_json(s)) for k, s in data["spaces"].items()])
    if kind == "Box":
        shape, dtype = _bounded(data["shape"]), np.dtype(data["dtype"])
        low = _bound_from_json(data["low"], shape, dtype)
        high = _bound_from_json(data["high"], shape, dtype)
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        dtype = np.dtype(data["dtype"]).type
        return spaces.Discrete(data["n"], start=data["start"], dtype=dtype)
    if kind == "MultiDiscrete":
        dtype = np.dtype(data["dtype"]).type
        return spaces.MultiDiscrete(np.array(data["nvec"]), dtype=dtype, start=data["start"])
    if kind == "MultiBinary":
        _bounded(np.atleast_1d(data["n"]).tolist())
        return spaces.MultiBinary(data["n"])
    raise ValueError(
        f"space: type must be Dict, Box, Discrete, MultiDiscrete or MultiBinary, got {kind!r}. "
        "The file is damaged."
    )


def _bounded(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that arrays may have.

    Raises:
        ValueError: If they would be larger than anything that is observed.
    """
    if math.prod(shape) > MOST_NUMBERS:
        raise ValueError(
            f"space: must have at most {MOST_NUMBERS} numbers, got shape {list(shape)}. The file "
            "is damaged."
        )
    return tuple(shape)


def _bound_to_json(bound: np.ndarray) -> Any:
    # Pictures have thousands of equal bounds; JSON has no infinity.
    if bound.size and (bound == bound.flat[0]).all():
        return _number_to_json(bound.flat[0])
    return [_number_to_json(v) for v in bound.reshape(-1)]


def _number_to_json(value: np.generic) -> float | int | str:
    number = value.item()
    return number if np.isfinite(number) else str(number)


def _bound_from_json(bound: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if isinstance(bound, list):
        return np.array([_number_from_json(v) for v in bound], dtype).reshape(shape)
    return np.full(shape, _number_from_json(bound), dtype)


def _number_from_json(value: float | int | str) -> float | int:
    return float(value) if isinstance(value, str) else value


_DEVICES = ("cpu", "cuda")
MOST_NUMBERS = 2**28
"""Of one observation or action."""
FORMAT = 1
WEIGHTS_FILE = "policy.safetensors"
DESCRIPTION_FILE = "policy.json"


def save_policy(directory: str | Path, policy: Policy, **meta: Any) -> None:
    """Write a policy into a directory.

    Args:
        directory: Made if needed; an older policy in it is replaced.
        policy: What is saved.
        meta: JSON values to keep with it, such as the number of environment steps.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # Weights first: a description beside other weights than its own is found out by its checksums.
    checksums = write_weights(directory / WEIGHTS_FILE, policy)
    content = {
        "format": FORMAT,
        "config": to_plain(policy.config),
        "observation_space": space_to_json(policy.observation_space),
        "action_space": space_to_json(policy.action_space),
        "max_episode_steps": policy.max_episode_steps,
        "meta": meta,
        "checksums": checksums,
    }
    write_sealed(directory / DESCRIPTION_FILE, content)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    which: Literal["latest", "best"] = "latest",
) -> Policy:
    """Load a policy, ready to act.

    Args:
        path: A run directory or one of its checkpoints.
        device: Where it goes.
        which: The checkpoint of a run directory.

    Raises:
        FileNotFoundError: If there is no policy at the path.
        ConfigError: If there is no such device, or `which` is another word.
        CheckpointError: If it is damaged, of a newer format, or not what its description says; the
            text names file, key and shape.
    """
    check_device(device)
    directory = find_checkpoint(path, which=which)
    file = directory / DESCRIPTION_FILE
    content = read_json(file, FORMAT)
    with naming(file):
        content = upgrade_policy(content)
        config = build(PolicyConfig, content["config"], "config")
        observations = cast("spaces.Dict", space_from_json(content["observation_space"]))
        actions = space_from_json(content["action_space"])
        limit = convert(int, content["max_episode_steps"], "max_episode_steps")
        # Before anything is allocated: what a file says may be of any size.
        with SizeGuard(count_weights(directory / WEIGHTS_FILE), directory / WEIGHTS_FILE):
            policy = Policy(
                config, observations, actions, max_episode_steps=limit, pretrained=False
            )
        checksums = content["checksums"]
    load_policy_weights(policy, directory, checksums)
    policy.checkpoint = directory.absolute()
    return policy.to(device).eval()


def load_config(directory: Path) -> PolicyConfig:
    """Return the configuration of the policy in a checkpoint.

    Raises:
        FileNotFoundError: If there is none.
        CheckpointError: If it is damaged, or of a newer format.
    """
    file = directory / DESCRIPTION_FILE
    content = read_json(file, FORMAT)
    with naming(file):
        return build(PolicyConfig, upgrade_policy(content)["config"], "config")


def check_device(device: str | torch.device) -> None:
    """Check that PyTorch has a device.

    Raises:
        ConfigError: If it has not.
    """
    try:
        if torch.empty(0, device=device).is_meta:
            raise TypeError("which holds no numbers")
    except (RuntimeError, AssertionError, TypeError) as error:
        kind = str(device).partition(":")[0]
        advice = "Use device=cpu." if kind in _DEVICES else nearest(kind, _DEVICES)
        raise ConfigError(
            f"device: must be a device of this machine, got {device} "
            f"({str(error).splitlines()[0]:.80}). {advice}"
        ) from None


def load_policy_weights(
    policy: Policy, directory: str | Path, checksums: dict[str, int] | None = None
) -> None:
    """Copy the weights of a checkpoint into a policy that is there already.

    Args:
        policy: Of the same architecture.
        directory: The checkpoint.
        checksums: Of its description. None: read from there.

    Raises:
        FileNotFoundError: If a file is missing.
        CheckpointError: If the weights are damaged or do not fit.
    """
    directory = Path(directory)
    if checksums is None:
        with naming(directory / DESCRIPTION_FILE):
            checksums = read_json(directory / DESCRIPTION_FILE, FORMAT)["checksums"]
    path = directory / WEIGHTS_FILE
    load_weights(policy, upgrade_weights(read_weights(path, checksums)), path)


def read_meta(path: str | Path, *, which: Literal["latest", "best"] = "latest") -> dict[str, Any]:
    """Return what was passed to `save_policy` as `meta`."""
    file = find_checkpoint(path, which=which) / DESCRIPTION_FILE
    with naming(file):
        return read_json(file, FORMAT)["meta"]


def find_checkpoint(path: str | Path, *, which: Literal["latest", "best"] = "latest") -> Path:
    """Return the directory that holds the policy of a run or checkpoint.

    Raises:
        FileNotFoundError: If there is none.
        ConfigError: If `which` is another word.
        CheckpointError: If the run's pointer to its checkpoints is damaged.
    """
    choice(which, ("latest", "best"), "which")
    root = located(path, DESCRIPTION_FILE)
    if (root / DESCRIPTION_FILE).is_file():
        return root
    for store in (root / "checkpoints", root):
        pointer = store / f"{which}.json"
        if not pointer.is_file():
            continue
        try:
            content = parse_json(pointer.read_bytes())
            if not is_intact(pointer, content):
                raise ValueError("its checksum is another")
            name = content["name"]
            if name in (".", "..") or Path(name).name != name:
                raise ValueError(f"{name} is no directory beside it")
            found = store / name
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{pointer}: must name a checkpoint, got a damaged file ({error}). "
                f"Name one of the directories in {store}."
            ) from None
        if (found / DESCRIPTION_FILE).is_file():
            return found
        raise FileNotFoundError(
            f"{pointer}: names {found}, which holds no {DESCRIPTION_FILE}. "
            f"Name another of the directories in {store}."
        )
    raise FileNotFoundError(
        f"{root}: must be a checkpoint with {DESCRIPTION_FILE} or a run with "
        f"checkpoints/{which}.json, found neither. Check the path."
    )
