"""Full pass of attention, forward and backward, by backend and by what may be seen.

FLOPs are counted for the scores that are seen, not for what a backend computes: 4 D for each in the
forward pass, 14 D in both. Run: python benchmarks/bench_attention.py [--device cuda] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import finish, measure
from torch import Tensor

from relic.policy.attention.attend import attend
from relic.policy.attention.inputs import Past, Sinks
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.attention.segments import Segments

# rows, heads, steps, head size
SHAPES = {
    "darkroom": (16, 4, 512, 16),
    "tiny": (16, 8, 512, 8),
    "small": (1, 8, 2048, 32),
}
CUDA_SHAPES = {"small_4k": (4, 8, 4096, 32), "small_64k": (1, 8, 65_536, 32)}
KINDS = ("plain", "segments", "window", "past")
EPISODE, WINDOW = 100, 128
DENSE_LIMIT = 2**28
"""Scores above which the reference, which holds them all, is left out."""


class Pass:
    """Random inputs of one shape and one kind of pass."""

    def __init__(self, kind: str, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype):
        num_rows, num_heads, num_steps, head_dim = shape
        self.kind, self.shape, self.window = kind, shape, WINDOW if kind == "window" else None
        queries = num_steps // 4 if kind == "past" else num_steps
        cached = num_steps - queries
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        own = [torch.randn(num_rows, queries, num_heads, head_dim, **made) for _ in range(3)]
        self.own = [x.transpose(1, 2).requires_grad_() for x in own]
        self.sinks = Sinks(
            torch.randn(num_heads, 1, head_dim, requires_grad=True, **made),
            torch.zeros(num_heads, 1, head_dim, **made),
        )
        self.past: Past | None = None
        if cached:
            past_shape = (num_rows, num_heads, cached, head_dim)
            self.past = Past(torch.randn(past_shape, **made), torch.randn(past_shape, **made))
        starts = torch.arange(queries, device=device).remainder(EPISODE) == 0
        self.segments = Segments(
            num_rows,
            queries,
            starts_NT=starts.expand(num_rows, -1) if kind == "segments" else None,
            past_steps=np.full(num_rows, cached) if cached else None,
            past_slots=cached,
            device=device,
        )
        self.gradient = torch.randn_like(self.own[0])

    def scores(self) -> int:
        """Return how many pairs of query and key are seen, sinks included."""
        num_rows, num_heads, num_steps, _ = self.shape
        queries = self.own[0].shape[2]
        at = np.arange(num_steps - queries, num_steps)
        seen = at % EPISODE + 1 if self.kind == "segments" else at + 1
        if self.window is not None:
            seen = np.minimum(seen, self.window)
        return int((seen + 1).sum()) * num_rows * num_heads

    def forward(self, backend: AttentionBackend) -> Tensor:
        """Attend."""
        return attend(
            *self.own,
            sinks=self.sinks,
            past=self.past,
            segments=self.segments,
            window=self.window,
            backend=backend,
        )

    def both(self, backend: AttentionBackend) -> None:
        """Attend and work out all gradients."""
        leaves = [*self.own, self.sinks.key]
        torch.autograd.grad(self.forward(backend), leaves, self.gradient)


def candidates(case: Pass, device: torch.device, dtype: torch.dtype) -> list[AttentionBackend]:
    """Return the backends that can do a pass here."""
    num_rows, num_heads, num_steps, _ = case.shape
    able = [AttentionBackend.SDPA]
    if num_rows * num_heads * num_steps**2 <= DENSE_LIMIT:
        able.insert(0, AttentionBackend.REFERENCE)
    if device.type == "cuda":
        if dtype in (torch.float16, torch.bfloat16) and case.window is None:
            able.append(AttentionBackend.VARLEN)
    elif case.kind in ("plain", "past"):
        able.append(AttentionBackend.COMPILED)
    return able


def timed(case: Pass, backend: AttentionBackend, device: torch.device, repeats: int) -> dict:
    """Measure one backend on one pass."""
    calls: dict[str, Callable[[], Any]] = {
        "forward": lambda: case.forward(backend),
        "both": lambda: case.both(backend),
    }
    work = case.scores() * case.shape[-1]
    result: dict[str, Any] = {"backend": backend.value, "kind": case.kind}
    for name, per_score in (("forward", 4), ("both", 14)):
        took = measure(calls[name], device, repeats)
        result[name] = took
        result[f"{name}_tflops"] = per_score * work / took["ms"] / 1e9
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: by device")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one repeat of the smallest shape")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    default = "bfloat16" if device.type == "cuda" else "float32"
    dtype = getattr(torch, args.dtype or default)
    shapes = {**SHAPES, **(CUDA_SHAPES if device.type == "cuda" else {})}
    if args.quick:
        shapes = {"quick": (1, 2, 160, 16)}
    results = []
    print(f"{'shape':10} {'kind':9} {'backend':10} {'forward':>11} {'and back':>15} {'TFLOP/s':>8}")
    for shape_name, shape in shapes.items():
        for kind in KINDS:
            case = Pass(kind, shape, device, dtype)
            for backend in candidates(case, device, dtype):
                row = timed(case, backend, device, 1 if args.quick else args.repeats)
                results.append({"shape": shape_name, "sizes": shape, **row})
                print(
                    f"{shape_name:10} {kind:9} {backend.value:10} {row['forward']['ms']:8.2f} ms "
                    f"{row['both']['ms']:12.2f} ms {row['both_tflops']:8.4f}"
                )
    finish("attention", vars(args), device, results)


if __name__ == "__main__":
    main()
