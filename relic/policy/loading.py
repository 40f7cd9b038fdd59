"""Policies on disk: `policy.safetensors` and `policy.json`, which hold all that acting takes.

Loading executes no code and needs neither the run's configuration nor the files of pretrained
encoders: frozen weights are saved with the others. What else a training run saves is not here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, cast

import torch
from gymnasium import spaces

from relic.policy.config import PolicyConfig
from relic.policy.policy import Policy
from relic.policy.space_json import space_from_json, space_to_json
from relic.policy.weights import (
    CheckpointError,
    load_weights,
    naming,
    read_json,
    read_weights,
    write_json,
    write_weights,
)
from relic.schema import build, to_plain

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
    write_json(directory / DESCRIPTION_FILE, content)


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
        CheckpointError: If it is damaged, of a newer format, or not what its description says; the
            text names file, key and shape.
    """
    directory = find_checkpoint(path, which=which)
    file = directory / DESCRIPTION_FILE
    content = read_json(file, FORMAT)
    with naming(file):
        policy = Policy(
            build(PolicyConfig, content["config"], "config"),
            cast("spaces.Dict", space_from_json(content["observation_space"])),
            space_from_json(content["action_space"]),
            max_episode_steps=content["max_episode_steps"],
            pretrained=False,
        )
        checksums = content["checksums"]
    load_policy_weights(policy, directory, checksums)
    return policy.to(device).eval()


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
    load_weights(policy, read_weights(path, checksums), path)


def read_meta(path: str | Path, *, which: Literal["latest", "best"] = "latest") -> dict[str, Any]:
    """Return what was passed to `save_policy` as `meta`."""
    file = find_checkpoint(path, which=which) / DESCRIPTION_FILE
    with naming(file):
        return read_json(file, FORMAT)["meta"]


def find_checkpoint(path: str | Path, *, which: Literal["latest", "best"] = "latest") -> Path:
    """Return the directory that holds the policy of a run or checkpoint.

    Raises:
        FileNotFoundError: If there is none.
        CheckpointError: If the run's pointer to its checkpoints is damaged.
    """
    root = Path(path)
    if (root / DESCRIPTION_FILE).is_file():
        return root
    for store in (root / "checkpoints", root):
        pointer = store / f"{which}.json"
        if not pointer.is_file():
            continue
        try:
            found = store / json.loads(pointer.read_text())["name"]
        except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
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
