"""Run by the doctor in a process of its own: prints what PyTorch can do here, as one JSON object.

Every attention backend that this machine may run is run, and held against the reference.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from relic.policy.attention.attend import attend
from relic.policy.attention.inputs import Sinks
from relic.policy.attention.kinds import AttentionBackend

CUDA_ONLY = (AttentionBackend.VARLEN, AttentionBackend.FLASH)
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def cuda() -> dict[str, Any]:
    """Say which devices there are, or why there is none, after work on the first of them."""
    try:
        torch.cuda.init()
        half = torch.ones(8, 8, device="cuda", dtype=torch.bfloat16)
        assert float((half @ half).sum()) == 512
    except (AssertionError, RuntimeError) as error:
        return {"devices": [], "error": str(error).strip().splitlines()[0]}
    count = torch.cuda.device_count()
    properties = [torch.cuda.get_device_properties(i) for i in range(count)]
    return {"devices": [f"{p.name}, {p.total_memory / 2**30:.0f} GiB" for p in properties]}


def attention(device: str) -> dict[str, str]:
    """Return for each backend `ok`, or what is wrong with it."""
    backends = [b for b in AttentionBackend if device == "cuda" or b not in CUDA_ONLY]
    if device == "cuda":
        backends.remove(AttentionBackend.COMPILED)
    return {b.value: _try(b, device) for b in backends}


def _try(backend: AttentionBackend, device: str) -> str:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q, k, v = torch.randn(3, 1, 2, 16, 32, device=device, dtype=dtype)
    sinks = Sinks(*torch.randn(2, 2, 1, 32, device=device, dtype=dtype))
    try:
        right = attend(q, k, v, sinks=sinks, backend=AttentionBackend.REFERENCE)
        found = attend(q, k, v, sinks=sinks, backend=backend)
    except Exception as error:  # whatever it is, the line says so
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    worst = float((found - right).abs().max())
    return "ok" if worst < _TOLERANCE[dtype] else f"wrong by {worst:.2g}"


def main() -> None:
    """Print the answer."""
    devices = cuda()
    device = "cuda" if devices["devices"] else "cpu"
    answer = {
        "version": torch.__version__,
        "built_for": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "cuda": devices,
        "device": device,
        "attention": attention(device),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
