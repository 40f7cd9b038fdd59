"""`python -m envs.habitat`: checks data on disk, and makes arrangements.

check                              the paper's data sets, under the folder that holds `data`
check CONFIG EPISODES              all files that a run with these would need
arrange CONFIG OUT --python P      a file of arrangements for scenes that have none
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from envs.core.process_pool import WorkerError
from envs.habitat.arrange import arrange_scenes
from envs.habitat.data import KNOWN, HabitatData, NavmeshMode, status
from envs.habitat.scene_files import DataError
from envs.habitat.setting import cache_directory


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m envs.habitat")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="say what is missing on disk")
    check.add_argument("config", type=Path, nargs="?", help="*.scene_dataset_config.json")
    check.add_argument("episodes", type=Path, nargs="?", help="file of rearrangement episodes")
    check.add_argument("--folder", type=Path, default=Path(), help="that holds `data`")
    arrange = commands.add_parser("arrange", help="put goal objects into scenes")
    arrange.add_argument("config", type=Path, help="*.scene_dataset_config.json")
    arrange.add_argument("out", type=Path, help="file to write, *.json.gz")
    arrange.add_argument("--scenes", nargs="+", help="names; default: all of the dataset")
    arrange.add_argument("--arrangements", type=int, default=9, help="of each scene")
    arrange.add_argument("--python", default=sys.executable, help="interpreter with habitat-sim")
    arrange.add_argument("--gpu", type=int, default=-1)
    arrange.add_argument("--image-lighting", action="store_true")
    for command in (check, arrange):
        command.add_argument("--objects", type=Path, nargs="+", default=[], metavar="DIR")
        command.add_argument("--navmesh", choices=list(NavmeshMode), default="file")
        command.add_argument("--cache", type=Path, help="for computed navmeshes")
    return parser.parse_args(arguments)


def check_known(folder: Path) -> int:
    """Say of each of the paper's data sets whether it is there; return the exit status."""
    missing = 0
    for item in KNOWN:
        broken = status(item, folder)
        missing += broken is not None
        state = "ok" if broken is None else broken
        sys.stdout.write(f"{item.name}: {folder / item.path} {state}\n")
        if broken is not None:
            sys.stdout.write(f"    get it: {item.how}\n")
    return int(missing > 0)


def check_files(options: argparse.Namespace) -> int:
    """List all that is missing or damaged; return the exit status."""
    data = HabitatData(
        options.config,
        options.episodes,
        objects=options.objects,
        navmesh=NavmeshMode(options.navmesh),
        cache=cache_directory(options.cache),
        refuse=False,
    )
    problems = data.problems()
    scenes = {a.scene for a in data.arrangements}
    sys.stdout.write(
        f"{data.name}: {len(data.arrangements)} arrangements of {len(scenes)} scenes, "
        f"{len(problems)} problems\n"
    )
    for problem in problems:
        sys.stdout.write(f"    {problem}\n")
    return int(bool(problems))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    options = parse(arguments)
    try:
        if options.command == "arrange":
            sys.stdout.write(arrange_scenes(options) + "\n")
            return 0
        if options.config is None:
            return check_known(options.folder)
        if options.episodes is None:
            raise DataError("check: must be told a file of episodes, too, got none")
        return check_files(options)
    except (ValueError, OSError, WorkerError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
