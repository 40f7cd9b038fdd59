"""The number format of passes over many steps."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from relic.policy.policy import Policy
from relic.ppo.config import Precision


def autocast(precision: Precision, policy: Policy) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which learning and refreshes run their passes."""
    if precision is Precision.BF16 and policy.device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()
