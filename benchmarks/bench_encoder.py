"""How fast do frozen encoders turn pictures into features?

    python benchmarks/bench_encoder.py [--threads 1] [--rows 16 32 64] [--quick]

The small CNN of `experiment=houses_small`, 64 x 64 pixels, as acting calls it (products of bytes
where the processor multiplies them natively), without calibration (bfloat16, where that is native)
and in float32, against the same layers as PyTorch writes them down: all pictures at once, scaled in
one operation, rectified into new memory. All take turns. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from timing import finish, measure_in_turns, product_tflops
from torch import Tensor, nn

from relic.policy.encoders.config import EncoderConfig, VisualKind
from relic.policy.encoders.images import ImageEncoder, ImageSpec, lean_dtype

CPU = torch.device("cpu")
SPEC = ImageSpec("colour", 64, 64, 3)
CONFIG = EncoderConfig(visual=VisualKind.SMALL_CNN, channels=32, feature_width=248)


class Plain(nn.Module):
    """The same weights in PyTorch's own modules."""

    def __init__(self, encoder: ImageEncoder) -> None:
        """Take over the layers of an encoder."""
        super().__init__()
        layers: list[nn.Module] = []
        self.num_flops = 0
        """Of one picture, a multiplication and an addition being two."""
        side = SPEC.height
        for conv in (m for m in encoder.backbone.modules() if isinstance(m, nn.Conv2d)):
            side = (side + 1) // 2
            self.num_flops += 2 * conv.weight.numel() * side * side
            layers += [conv, nn.ReLU()]
        linear = next(m for m in encoder.compress.modules() if isinstance(m, nn.Linear))
        own = nn.Linear(linear.in_features, linear.out_features)
        own.load_state_dict(linear.state_dict())
        self.num_flops += 2 * linear.weight.numel()
        self.layers = nn.Sequential(*layers, nn.Flatten(), own, nn.ReLU())

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features of uint8 pictures, channels last."""
        return self.layers((pictures * (1 / 255)).movedim(-1, 1))


def rows_table(rows: list[int], repeats: int) -> list[dict[str, Any]]:
    """Measure all forms at each number of rows."""
    encoder, calibrated = ImageEncoder(CONFIG, SPEC), ImageEncoder(CONFIG, SPEC)
    calibrated.load_state_dict(encoder.state_dict())
    calibrated.calibrate(_pictures(64))
    plain = Plain(encoder)
    best = product_tflops(CPU, min(repeats, 5), torch.float32)
    lean = lean_dtype(torch.float16, CPU.type)
    acting = "bytes" if calibrated.in_bytes(torch.float16) else lean or "float32"
    print(
        f"a large product reaches {best:.3f} TFLOP/s; acting computes in {acting}, "
        f"without calibration in {lean or 'float32'}"
    )
    names = ("acting", "uncalibrated", "float32", "plain")
    print(f"{'rows':>5} {' '.join(f'{name:>12}' for name in names)} {'plain / acting':>14}")
    results = []
    for count in rows:
        pictures = _pictures(count)
        calls = {
            "acting": lambda p=pictures: calibrated.frozen(p, torch.float16),
            "uncalibrated": lambda p=pictures: encoder.frozen(p, torch.float16),
            "float32": lambda p=pictures: encoder.frozen(p, torch.float32),
            "plain": lambda p=pictures: plain(p),
        }
        torch.testing.assert_close(calls["float32"](), calls["plain"](), atol=1e-5, rtol=1e-5)
        took = measure_in_turns(calls, CPU, repeats)
        us = {name: took[name]["ms"] * 1e3 / count for name in calls}
        share = plain.num_flops / us["float32"] / 1e6 / best
        results.append({"rows": count, **us, "float32_share": share})
        told = " ".join(f"{value:9.1f} us" for value in us.values())
        print(f"{count:5} {told} {us['plain'] / us['acting']:14.2f}")
    return results


def _pictures(count: int) -> Tensor:
    shape = (count, SPEC.height, SPEC.width, SPEC.channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="one repeat of the fewest rows")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    quick = ([4], 1)
    results = rows_table(*(quick if args.quick else (args.rows, args.repeats)))
    finish("encoder", vars(args), CPU, results)


if __name__ == "__main__":
    main()
