"""One cached step of the memory against the length of its context, and tokens per second by size.

The rival is a cache that grows by concatenation: the same weights and the same attention, but each
step copies all keys and values to a place one step longer. Both see random caches, since filling
64k steps takes longer than measuring them.
`acting` takes a cached step with the heads of action and value and a draw, as it is in small houses
and in Darkroom, and compares it with the same step by PyTorch's operations and attention, in turns.
`memories` takes a step of every memory, and learning from 512 steps.
Run: python benchmarks/bench_policy_step.py [--device cuda] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from timing import copy_bandwidth, finish, measure, measure_in_turns, precisions, product_tflops
from torch import Tensor, nn

from relic.policy.attention.kinds import AttentionBackend
from relic.policy.heads import CategoricalHead, ValueHead
from relic.policy.memory.blocks import Block
from relic.policy.memory.config import TRANSFORMER_SIZES, TransformerConfig
from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.memories import MemorySections, make_memory
from relic.policy.memory.sequence_model import SequenceModel, SequenceState
from relic.policy.memory.transformer import Transformer
from relic.schema import build

CACHES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONTEXTS = (256, 1024, 4096, 16_384, 65_536)
EPISODE_STEPS = 500
ROOM = 64
"""Steps that a measured cache has room for beyond its context, on a CPU."""


def filled_state(model: Transformer, num_rows: int, steps: int, dtype: torch.dtype) -> KVCache:
    """Return a cache of rows that have seen so many random steps."""
    # A captured step reads up to the next power of two, as in training.
    room = steps if model.norm.weight.is_cuda else ROOM
    state = model.initial_state(num_rows, steps + room, dtype=dtype)
    kv = state.kv[..., : model.config.sink_slots + steps, :]
    count = torch.full((num_rows,), steps)
    state.load_state_dict(
        {
            "kv": torch.randn(kv.shape, device=kv.device, dtype=dtype),
            "lengths": count,
            "segment_steps": count,
            "in_episode": torch.zeros_like(count),
            "episode": count // EPISODE_STEPS,
            "capacity": state.capacity,
        }
    )
    return state


class GrowingCache:
    """The rival: `torch.cat` in every layer of every step."""

    def __init__(self, model: Transformer, state: KVCache, steps: int):
        end = state.num_sinks + steps
        self.model = model
        self.layers = [state.kv[i, :, :, :, :end].clone() for i in range(len(model.blocks))]

    @torch.inference_mode()
    def step(self, x_NE: Tensor) -> Tensor:
        """Read a step; the grown cache is dropped, so that every call sees the same context."""
        h_NE = x_NE
        for block, cache in zip(self.model.blocks, self.layers, strict=True):
            assert isinstance(block, Block)
            qkv = block.qkv(block.attention_norm(h_NE))
            q, k, v = qkv.unflatten(-1, (3, self.model.config.num_heads, -1)).unbind(1)
            keys = torch.cat([cache[0], k.to(cache.dtype).unsqueeze(2)], dim=2)
            values = torch.cat([cache[1], v.to(cache.dtype).unsqueeze(2)], dim=2)
            seen = F.scaled_dot_product_attention(q.to(cache.dtype).unsqueeze(2), keys, values)
            h_NE = h_NE + block.out(seen.flatten(1).to(h_NE.dtype))
            h_NE = h_NE + block.mlp(block.mlp_norm(h_NE))
        return self.model.norm(h_NE)


def decode_rows(args: argparse.Namespace, device: torch.device, repeats: int) -> list[dict]:
    """Measure a step at each context, with a cache of float32 and of half as many bytes."""
    model = Transformer(TransformerConfig.preset(args.size), max_episode_steps=EPISODE_STEPS)
    model = model.to(device)
    bandwidth = copy_bandwidth(device, repeats)
    print(f"decode, size {args.size}, {args.rows} rows; a large copy moves {bandwidth:.1f} GB/s")
    print(
        f"{'context':>8} {'cache':>8} {'step':>11} {'by cat':>11} {'ratio':>7} {'GB/s':>7} "
        f"{'of copy':>8} graph"
    )
    results = []
    contexts = (256,) if args.quick else args.contexts
    for steps, (name, dtype) in itertools.product(contexts, CACHES.items()):
        row = decode_row(model, filled_state(model, args.rows, steps, dtype), steps, repeats)
        row["cache"] = name
        row["share_of_copy"] = row["gb_per_s"] / bandwidth
        results.append(row)
        print(
            f"{steps:8} {row['cache']:>8} {row['step']['ms']:8.3f} ms "
            f"{row['by_cat']['ms']:8.3f} ms "
            f"{row['ratio']:6.1f}x {row['gb_per_s']:7.1f} {row['share_of_copy']:7.0%} "
            + (f"{row['graph']['ms']:.3f} ms" if "graph" in row else "")
        )
    return results


def decode_row(model: Transformer, state: KVCache, steps: int, repeats: int) -> dict[str, Any]:
    """Measure a step at one context, and its rival."""
    device = state.kv.device
    x = torch.randn(state.num_rows, model.width, device=device)
    starts = torch.zeros(state.num_rows, dtype=torch.bool, device=device)
    with torch.inference_mode():
        ours = measure(lambda: model.step(x, starts, state, write=False), device, repeats)
    rival = GrowingCache(model, state, steps)
    theirs = measure(lambda: rival.step(x), device, repeats)
    read = state.nbytes * steps / state.capacity
    row: dict[str, Any] = {
        "context": steps,
        "step": ours,
        "by_cat": theirs,
        "ratio": theirs["ms"] / ours["ms"],
        "gb_per_s": read / ours["ms"] / 1e6,
    }
    if device.type == "cuda":
        model.use_cuda_graph(state)
        # No more calls than there is room for: a captured step always writes.
        with torch.inference_mode():
            captured = measure(
                lambda: model.step(x, starts, state), device, min(repeats, ROOM // 2)
            )
        row["graph"] = captured
        state.release()
    return row


def forward_flops(config: TransformerConfig, begin: int, end: int) -> float:
    """Return a forward pass's operations over steps `[begin, end)` of a row that see all before."""
    weights = config.num_layers * (4 * config.width**2 + 3 * config.width * config.mlp_width)
    seen = (end * (end + 1) - begin * (begin + 1)) / 2
    return 2.0 * weights * (end - begin) + config.num_layers * 4 * config.width * seen


def size_calls(
    model: Transformer, x: Tensor, starts: Tensor, state: KVCache
) -> dict[str, Callable[[], None]]:
    """Return one cached step, one full pass, and one with its gradients."""
    half = x.is_cuda

    def learn() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            y = model(x, starts)
        y.float().square().mean().backward()

    @torch.no_grad()
    def read() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            model(x, starts)

    @torch.inference_mode()
    def act() -> None:
        model.step(x[:, 0], starts[:, 0], state, write=False)

    return {"acting": act, "reading": read, "learning": learn}


def compiled_times(
    model: Transformer, x: Tensor, starts: Tensor, state: KVCache, repeats: int
) -> dict[str, dict[str, float]]:
    """Measure the passes with what surrounds attention compiled; says how long compiling took."""
    torch.compiler.reset()
    for block in model.blocks:
        assert isinstance(block, Block)
        for part in ("_project", "finish"):
            setattr(block, part, torch.compile(getattr(block, part), dynamic=True))
    began = time.perf_counter()
    calls = size_calls(model, x, starts, state)
    del calls["acting"]
    for call in calls.values():
        call()
    print(f"{'':9} compiling took {time.perf_counter() - began:.0f} s")
    return {name: measure(call, x.device, repeats) for name, call in calls.items()}


def size_rows(args: argparse.Namespace, device: torch.device, repeats: int) -> list[dict]:
    """Measure acting, reading and learning at each size."""
    num_rows, steps = (2, 64) if args.quick else (args.rows, 512)
    sizes = ("darkroom",) if args.quick else tuple(TRANSFORMER_SIZES)
    best = max(
        product_tflops(device, repeats, dtype, quick=args.quick)
        for dtype in precisions(device).values()
    )
    print(
        f"tokens per second, {num_rows} rows, {steps} steps; a large product reaches "
        f"{best:.3f} TFLOP/s, and passes so much of it (model-FLOP use)"
    )
    print(
        f"{'size':9} {'parameters':>11} {'B/step':>7} {'acting':>9} {'reading':>9} {'learning':>9} "
        f"{'use, reading':>12} {'learning':>8}"
    )
    results = []
    for size in sizes:
        config = TransformerConfig.preset(size)
        model = Transformer(config, max_episode_steps=EPISODE_STEPS).to(device)
        x = torch.randn(num_rows, steps, config.width, device=device)
        starts = (torch.arange(steps, device=device) % EPISODE_STEPS == 0).expand(num_rows, -1)
        state = filled_state(model, num_rows, steps, torch.float32)
        calls = size_calls(model, x, starts, state)
        took = {name: measure(call, device, repeats) for name, call in calls.items()}
        tokens = {"acting": num_rows, "reading": num_rows * steps, "learning": num_rows * steps}
        rate = {name: tokens[name] / took[name]["ms"] * 1e3 for name in took}
        flops = forward_flops(config, 0, steps) / steps / 1e12
        row: dict[str, Any] = {
            "size": size,
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes_per_step": 2 * config.num_layers * config.width * 4,
            "tokens_per_s": rate,
            "share_of_product": {
                name: passes * flops * rate[name] / best
                for name, passes in {"reading": 1, "learning": 3}.items()
            },
        }
        results.append(row)
        print(
            f"{size:9} {row['parameters']:11,} {row['bytes_per_step']:7} {rate['acting']:9,.0f} "
            f"{rate['reading']:9,.0f} {rate['learning']:9,.0f} "
            f"{row['share_of_product']['reading']:12.0%} {row['share_of_product']['learning']:8.0%}"
        )
        if args.compile:
            compiled = compiled_times(model, x, starts, state, repeats)
            ratio = {name: took[name]["ms"] / compiled[name]["ms"] for name in compiled}
            row["compiled_ratio"] = ratio
            print(
                f"{'':9} {'compiled, times as fast':>29} "
                f"{ratio['reading']:8.2f}x {ratio['learning']:8.2f}x"
            )
    return results


ACTING = {
    "houses_small": TransformerConfig(
        num_layers=2, num_heads=4, width=96, mlp_width=192, rope_base=100
    ),
    "darkroom": TransformerConfig.preset("darkroom"),
}
"""The transformers of two experiments."""


def acting_call(
    config: TransformerConfig, num_rows: int, steps: int, device: torch.device
) -> Callable[[], Any]:
    """Return a step of rows that have seen so many steps, with a draw and its value."""
    torch.manual_seed(0)
    model = Transformer(config, max_episode_steps=EPISODE_STEPS).to(device)
    features = nn.Linear(model.width, model.width).to(device)
    actor, critic = CategoricalHead(model.width, 6).to(device), ValueHead(model.width).to(device)
    state = filled_state(model, num_rows, steps, torch.float32)
    x, noise = torch.randn(num_rows, model.width, device=device), torch.rand(num_rows, 1)
    starts = torch.zeros(num_rows, dtype=torch.bool, device=device)

    @torch.inference_mode()
    def act() -> tuple[Tensor, ...]:
        told = features(model.step(x, starts, state, write=False))
        distribution = actor(told)
        action = distribution.sample(noise.to(device))
        return action, distribution.log_prob(action), critic(told)

    return act


def acting_rows(args: argparse.Namespace, device: torch.device, repeats: int) -> list[dict]:
    """Compare a step with the same one by PyTorch alone."""
    print("acting: a step with heads and a draw, and the same by PyTorch's operations")
    print(f"{'experiment':13} {'rows':>5} {'context':>8} {'ours':>11} {'PyTorch':>11} {'ratio':>7}")
    results = []
    settings = itertools.product((16,) if args.quick else (16, 32, 64), (64, 512))
    for (name, config), (rows, steps) in itertools.product(ACTING.items(), list(settings)):
        plain = replace(config, attention_backend=AttentionBackend.SDPA)
        calls = {
            "ours": acting_call(config, rows, steps, device),
            "pytorch": acting_call(plain, rows, steps, device),
        }
        for got, expected in zip(*(call() for call in calls.values()), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        took = measure_in_turns(calls, device, 4 * repeats)
        ratio = took["pytorch"]["ms"] / took["ours"]["ms"]
        results.append({"experiment": name, "rows": rows, "context": steps, **took, "ratio": ratio})
        print(
            f"{name:13} {rows:5} {steps:8} {took['ours']['ms']:8.3f} ms "
            f"{took['pytorch']['ms']:8.3f} ms {ratio:6.2f}x"
        )
    return results


def state_after(model: SequenceModel, num_rows: int, steps: int) -> SequenceState:
    """Return a state of rows that have seen so many steps, of random content."""
    if isinstance(model, Transformer):
        return filled_state(model, num_rows, steps, torch.float32)
    state = model.initial_state(num_rows, steps + ROOM)
    content = state.state_dict()
    for name, part in content.items():
        if isinstance(part, Tensor) and part.is_floating_point():
            content[name] = torch.randn_like(part)
    state.load_state_dict(content | {"lengths": torch.full((num_rows,), steps)})
    return state


LAYERS = {"num_layers": 4, "width": 128, "mlp_width": 256}
HEADS = {**LAYERS, "num_heads": 4}
MEMORIES = {
    "transformer": {"transformer": HEADS},
    "transformer_xl": {"transformer_xl": HEADS},
    "memo": {"memo": HEADS},
    "delta_rule": {"delta_rule": HEADS},
    "selective": {"selective": {**HEADS, "state_size": 32}},
    "min_gru": {"min_gru": LAYERS},
    "gru": {"recurrent": {"width": 256}},
}
"""Memories of one width and depth, but for the GRU of RL², and their sections."""


def memory_rows(args: argparse.Namespace, device: torch.device, repeats: int) -> list[dict]:
    """Measure a step of each memory at each context, and learning from 512 steps."""
    contexts, learned = ((256,), 64) if args.quick else (args.contexts, 512)
    print(f"memories of width 128 and 4 layers (gru: one of 256), {args.rows} rows")
    print(f"{'memory':15} {'context':>8} {'step':>11} {'bytes/row':>13} {'learning, steps/s':>18}")
    results = []
    for name, sections in MEMORIES.items():
        config = build(MemorySections, {"memory": name, **sections})
        model = make_memory(config, max_episode_steps=EPISODE_STEPS).to(device)
        learn, rate = _learning(model, args.rows, learned, device), args.rows * learned * 1e3
        rate /= measure(learn, device, repeats)["ms"]
        for steps in contexts:
            state = state_after(model, args.rows, steps)
            took = measure(_stepping(model, state, device), device, repeats)
            size = model.bytes_per_row(steps)
            row = {"memory": name, "context": steps, "step": took, "bytes_per_row": size}
            results.append({**row, "learned_per_s": rate})
            print(f"{name:15} {steps:8} {took['ms']:8.3f} ms {size:13,} {rate:18,.0f}")
    return results


def _learning(
    model: SequenceModel, num_rows: int, steps: int, device: torch.device
) -> Callable[[], None]:
    x_NTE = torch.randn(num_rows, steps, model.width, device=device)
    starts_NT = (torch.arange(steps, device=device) % EPISODE_STEPS == 0).expand(num_rows, -1)

    def learn() -> None:
        model(x_NTE, starts_NT).square().mean().backward()

    return learn


def _stepping(
    model: SequenceModel, state: SequenceState, device: torch.device
) -> Callable[[], Tensor]:
    x_NE = torch.randn(state.num_rows, model.width, device=device)
    starts_N = torch.zeros(state.num_rows, dtype=torch.bool, device=device)

    @torch.inference_mode()
    def act() -> Tensor:
        return model.step(x_NE, starts_N, state, write=False)

    return act


PARTS = {"decode": decode_rows, "sizes": size_rows, "acting": acting_rows, "memories": memory_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--size", default="small", choices=tuple(TRANSFORMER_SIZES))
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="sizes also by torch.compile")
    parser.add_argument("--quick", action="store_true", help="one repeat of the smallest case")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    repeats = 1 if args.quick else args.repeats
    results = {name: PARTS[name](args, device, repeats) for name in args.parts}
    finish("policy_step", vars(args), device, results)


if __name__ == "__main__":
    main()
