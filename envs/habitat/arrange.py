"""Makes arrangements for scenes that have none, by the paper's procedure.

For each scene and number, 30 to 40 instances of the goal categories are drawn and put on random
surfaces (`envs.habitat.worker.arranging`); then those that an agent cannot stand in front of and
see are left out. A pure function of dataset, scene and number, under a version.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from envs.core.process_pool import Lost, WorkerError, WorkerPool
from envs.core.validation import check_count
from envs.habitat.data import NavmeshMode, navmesh_path
from envs.habitat.places import open_arguments
from envs.habitat.scene_files import (
    Arrangement,
    DataError,
    MovableObject,
    SceneDataset,
    write_episodes,
)
from envs.habitat.setting import Setting
from envs.habitat.start import start_pool
from envs.habitat.worker.arranging import VERSION
from envs.objectnav.goals import YCB_NAMES, goal_of_asset

_SPACING: Final = 0.25
"""Of the grid on which viewpoints are looked for, to see that there is one: coarse is enough."""
_TIMEOUT: Final = 1800.0


def arrange_scenes(options: argparse.Namespace) -> str:
    """Write a file of arrangements; return what was made.

    Args:
        options: `config`, `out`, `scenes`, `arrangements`, `python`, `gpu`, `image_lighting`,
            `objects`, `navmesh`, `cache`: see `envs.habitat.command`.

    Raises:
        ValueError: Files are missing, or habitat-sim does not start.
        WorkerError: It fails on the way.
    """
    check_count("arrange", "arrangements", options.arrangements, least=1)
    dataset = SceneDataset(options.config.expanduser().absolute())
    setting = Setting(
        # Pixels are counted in pictures of their own, so the size of others does not matter.
        resolution=8,
        sensors=(),
        viewpoint_spacing=_SPACING,
        gpus=[options.gpu],
        image_lighting=options.image_lighting,
        cache=options.cache,
    )
    objects = [path.expanduser().absolute() for path in options.objects]
    templates = _templates(dataset, objects)
    names = options.scenes or sorted(dataset.scenes)
    scenes = {name: _scene(dataset, name, options.navmesh, setting) for name in names}
    made: list[Arrangement] = []
    pool = start_pool(options.python, setting, str(dataset.config), timeout=_TIMEOUT)
    try:
        ask = partial(_ask, pool)
        for name, scene in scenes.items():
            for number in range(options.arrangements):
                # Not `hash`, which differs from process to process.
                seed = [VERSION, zlib.crc32(f"{dataset.name}/{name}".encode()), number]
                drawn = _arrange(ask, scene, setting, seed, templates, list(map(str, objects)))
                made.append(Arrangement(name, drawn, tuple(map(str, options.objects))))
    finally:
        pool.close()
    notes = {"arranging_version": VERSION, "scene_dataset": dataset.name}
    write_episodes(options.out, made, notes)
    count = np.mean([len(a.objects) for a in made])
    return f"Wrote {len(made)} arrangements with {count:.1f} objects each to {options.out}."


def _templates(dataset: SceneDataset, objects: Sequence[Path]) -> list[list[str]]:
    """Return the names of the goal objects' configurations, by category.

    Raises:
        DataError: A category has none.
    """
    found: list[list[str]] = [[] for _ in YCB_NAMES]
    for name in dataset.object_names(objects):
        category = goal_of_asset(name)
        if category is not None:
            found[category].append(f"{name}.object_config.json")
    missing = [YCB_NAMES[c] for c, names in enumerate(found) if not names]
    if missing:
        raise DataError(
            f"arrange: all goal objects must be on disk, but {', '.join(missing)} are missing. "
            "Name the directory of their configurations: --objects data/objects/ycb/configs"
        )
    return found


def _scene(dataset: SceneDataset, name: str, mode: str, setting: Setting) -> dict[str, Any]:
    """Return what a worker needs to open a scene.

    Raises:
        DataError: There is no such scene, or it has no navmesh.
    """
    scene = dataset.scene(name)
    cache, radius = setting.cache / "navmeshes", setting.rules.agent_radius
    navmesh = navmesh_path(dataset, name, NavmeshMode(mode), cache, radius)
    if navmesh is None:
        raise DataError(
            f"arrange: scene {name} must have a navmesh, got none. Add --navmesh compute"
        )
    return open_arguments(dataset, scene, navmesh, setting.navmesh_rules)


def _arrange(
    ask: Callable[..., Any],
    scene: dict[str, Any],
    setting: Setting,
    seed: list[int],
    templates: list[list[str]],
    paths: list[str],
) -> tuple[MovableObject, ...]:
    """Draw one arrangement, and keep what can be seen."""
    category_of = {name: category for category, names in enumerate(templates) for name in names}
    # Without objects, as they are to stand on the scene's own surfaces.
    ask("open", setting.gpus[0], scene, [], paths, {})
    placed = ask("arrange", seed, {"templates": templates, "config_paths": paths})
    drawn = [
        MovableObject(template, tuple(map(tuple, pose)), category_of[template])
        for template, pose, _ in placed
    ]
    described = [[o.template, o.pose, o.category] for o in drawn]
    # Again, with all objects in place, as they may hide each other.
    ask("open", setting.gpus[0], scene, described, paths, {})
    seen = [len(ask("viewpoints", i, setting.viewpoint_rules)) > 0 for i in range(len(drawn))]
    return tuple(o for o, visible in zip(drawn, seen, strict=True) if visible)


def _ask(pool: WorkerPool, method: str, *arguments: Any) -> Any:
    answer = pool.call([0], method, [arguments], show=False)[0]
    if isinstance(answer, Lost):
        raise WorkerError(f"arrange: the worker {answer.reason}")
    return answer
