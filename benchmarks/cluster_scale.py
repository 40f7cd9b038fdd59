"""Where a cluster of G learners saturates: a model of one update, from measured constants.

Each GPU has its own rows (the batch grows with G), so collecting and learning take the same time on
any number; what grows is the exchange of gradients, and in the split placement what EnvRunners
ship. What must be measured on the machine in question has no default; the benchmark that prints
each is named below. The network's defaults are assumptions.
Run: python benchmarks/cluster_scale.py --act-ms MS --learn-tokens-per-s N --host-gbytes GB
     [--gpus 8 64 512] [--rows 32] [--link-gbytes 25] ...
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """What one update depends on."""

    gpus: int
    rows: int
    """Of each GPU."""
    chunk: int
    context: int
    epochs: int
    minibatches: int
    parameters: float
    observation_bytes: int
    simulator_steps_per_s: float
    """Of one core: docs/PERFORMANCE.md, medium houses at 64 x 64."""
    cores: int
    """For the simulators of each GPU."""
    act_ms: float
    """One cached step of all rows: benchmarks/bench_policy_step.py."""
    learn_tokens_per_s: float
    """Forward and backward: benchmarks/bench_policy_step.py."""
    link_gbytes: float
    """Gigabytes per second of each GPU's share of the network, each way."""
    latency_us: float
    """Of one hop."""
    host_gbytes: float
    """Gigabytes per second at which chunks are packed, sent and written: bench_cluster.py."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one update, by part."""

    simulate: float
    act: float
    learn: float
    gradients: float
    ship: float
    """Chunks and weights; only in the split placement."""

    @property
    def work(self) -> float:
        """What one GPU alone would take."""
        return self.simulate + self.act + self.learn

    def efficiency(self, *, split: bool) -> float:
        """Share of the time that is work."""
        return self.work / (self.work + self.gradients + (self.ship if split else 0.0))


def update_cost(setting: Setting) -> Cost:
    """Compute what one partial update with a constant prefix costs each GPU."""
    steps = setting.rows * setting.chunk
    gradient_bytes = 4 * setting.parameters
    # Ring all-reduce: each GPU sends and receives 2 (G - 1) / G of the buffer in 2 (G - 1) hops;
    # NCCL's trees need logarithmically many, and it takes the better of the two.
    share = 2 * (setting.gpus - 1) / setting.gpus
    hops = 2 * math.ceil(math.log2(max(setting.gpus, 2)))
    exchange = share * gradient_bytes / (1e9 * setting.link_gbytes) + hops * 1e-6 * (
        setting.latency_us
    )
    shipped = steps * setting.observation_bytes + gradient_bytes
    return Cost(
        simulate=steps / (setting.cores * setting.simulator_steps_per_s),
        act=setting.chunk * setting.act_ms / 1e3,
        learn=setting.epochs * steps / setting.learn_tokens_per_s,
        gradients=setting.epochs * setting.minibatches * exchange if setting.gpus > 1 else 0.0,
        ship=shipped / (1e9 * min(setting.host_gbytes, setting.link_gbytes)),
    )


def context_bytes(setting: Setting) -> float:
    """Return what the pixels of one GPU's rollout weigh, in gigabytes."""
    return setting.rows * setting.context * setting.observation_bytes / 1e9


def row(setting: Setting) -> str:
    """Return one line of the table."""
    cost = update_cost(setting)
    gradient_mb = 4 * setting.parameters / 1e6
    parts = {
        "simulators": cost.simulate,
        "acting": cost.act,
        "learning": cost.learn,
        "gradients": cost.gradients,
        "shipping": cost.ship,
    }
    largest = max(parts, key=lambda name: parts[name])
    return (
        f"| {setting.gpus} | {setting.gpus * setting.rows} | {setting.gpus * setting.cores} | "
        f"{setting.epochs * setting.minibatches * gradient_mb:.0f} | "
        f"{setting.gpus * setting.rows * setting.chunk * setting.observation_bytes / 1e9:.2f} | "
        f"{1e3 * cost.simulate:.0f} | {1e3 * cost.act:.0f} | {1e3 * cost.learn:.0f} | "
        f"{1e3 * cost.gradients:.1f} | {1e3 * cost.ship:.0f} | "
        f"{100 * cost.efficiency(split=False):.1f} % | {100 * cost.efficiency(split=True):.1f} % | "
        f"{setting.gpus * setting.rows * setting.chunk / (cost.work + cost.gradients):,.0f} | "
        f"{largest} |"
    )


HEADER = (
    "| GPUs | rows | simulator cores | gradients, MB a GPU and update | chunk, GB of all | "
    "simulate, ms | act | learn | gradients | ship | colocated | split | steps/s | largest |\n"
    "|" + "---|" * 14
)


def saturation(setting: Setting, share: float) -> int | None:
    """Return the fewest rows a GPU at which gradients take less than a share of the update."""
    for rows in range(setting.minibatches, 4097, setting.minibatches):
        alone = Setting(**{**_fields(setting), "rows": rows})
        cost = update_cost(alone)
        if cost.gradients < share * (cost.work + cost.gradients):
            return rows
    return None


def _fields(setting: Setting) -> dict[str, float]:
    return {name: getattr(setting, name) for name in Setting.__slots__}


def main() -> None:
    """Print the table and what follows from it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=2)
    parser.add_argument("--parameters", type=float, default=5.8e6)
    parser.add_argument("--observation-bytes", type=int, default=64 * 64 * 3)
    parser.add_argument("--simulator-steps-per-s", type=float, default=20_000)
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--act-ms", type=float, required=True)
    parser.add_argument("--learn-tokens-per-s", type=float, required=True)
    parser.add_argument("--link-gbytes", type=float, default=25.0)
    parser.add_argument("--latency-us", type=float, default=10.0)
    parser.add_argument("--host-gbytes", type=float, required=True)
    args = vars(parser.parse_args())
    sizes = args.pop("gpus")
    settings = [Setting(gpus=gpus, **args) for gpus in sizes]
    print(HEADER)
    for setting in settings:
        print(row(setting))
    print(f"\npixels of a rollout: {context_bytes(settings[0]):.1f} GB a GPU")
    for setting in settings:
        rows = saturation(setting, 0.05)
        print(f"{setting.gpus} GPUs: gradients take less than 5 % from {rows} rows a GPU on")


if __name__ == "__main__":
    main()
