"""Writes houses as a Habitat scene dataset: `python -m envs.houses.export --size small DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from envs.houses.dataset import HouseDataset
from envs.houses.export.scene_dataset import export_houses
from envs.houses.furniture.goal_objects import SCALES
from envs.houses.generation.floorplan import SIZES
from envs.houses.generation.generator import SPLITS, split_of
from envs.houses.scene import House


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m envs.houses.export",
        description="Write houses as a Habitat scene dataset.",
    )
    parser.add_argument("directory", type=Path, help="where the files go")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--first", type=int, default=0, help="number of the first house")
    parser.add_argument("--count", type=int, default=1, help="how many houses of the split")
    parser.add_argument("--seed", type=int, nargs="+", help="seeds of houses, instead of a split's")
    parser.add_argument("--size", choices=tuple(SIZES), default="medium")
    parser.add_argument("--scale", choices=SCALES, help="of the goal objects; default by size")
    parser.add_argument("--arrangements", type=int, default=1, help="how many of each house")
    return parser.parse_args(arguments)


def _chosen_houses(options: argparse.Namespace) -> Iterable[House]:
    """Return the houses that the command line asks for, made one by one.

    Raises:
        ValueError: If there are no such houses.
    """
    if options.count < 1 or options.arrangements < 0:
        raise ValueError(
            "--count must be at least 1 and --arrangements at least 0, got "
            f"{options.count} and {options.arrangements}."
        )
    seeds = options.seed
    split = options.split if seeds is None else split_of(seeds[0])
    dataset = HouseDataset(split, options.size, scale=options.scale, houses=seeds, cache=1)
    numbers = range(len(seeds)) if seeds else range(options.first, options.first + options.count)
    for number in numbers:
        dataset.house_seed(number)
    return (dataset.house(number) for number in numbers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parse(arguments)
    try:
        config = export_houses(
            _chosen_houses(options),
            options.directory,
            arrangements=range(options.arrangements),
            scale=options.scale,
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    size = sum(path.stat().st_size for path in config.parent.rglob("*") if path.is_file())
    scenes = sum(1 for _ in (config.parent / "scenes").iterdir())
    sys.stdout.write(
        f"Wrote {scenes} houses with {options.arrangements} arrangements of each, "
        f"{size / 1e6:.1f} MB, to {config}.\n"
    )
    return 0
