"""Maps, sheets, videos and the walk by hand show what is there."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import matplotlib

matplotlib.use("Agg")
import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from envs.core.demonstrations import DemonstrationError, read_demonstrations, rehearse
from envs.houses.dataset import HouseDataset
from envs.houses.env import HousesEnv
from envs.houses.scene import Semantic
from envs.houses.show import terminal, topdown
from envs.houses.show.command import keep_in, main

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def scene():
    return HouseDataset("val", "small").scene(1, 0)


def test_map_has_the_houses_extent_and_its_walls_where_they_are(scene) -> None:
    plan = topdown.draw_map(scene, 40.0)
    assert plan.image.shape == (
        round(scene.house.extent[1] * 40),
        round(scene.house.extent[0] * 40),
        3,
    )
    p = scene.house.primitives
    wall = np.array(topdown.WALL_COLOUR) * 255
    standing = (p.semantic_P == Semantic.WALL) & (p.center_P3[:, 2] < 1.5)
    assert standing.sum() > 4
    for x, y, _ in p.center_P3[standing]:
        column, row = plan.pixel(float(x), float(y))
        pixel = plan.image[int(row), int(column)]
        np.testing.assert_allclose(pixel, wall, atol=2)


def test_map_draws_paths_objects_and_labels_without_changing_the_first(scene) -> None:
    plan = topdown.draw_map(scene.house, 40.0)
    before = plan.image.copy()
    room = scene.house.rooms[0]
    start, stop = (room.x0 + 0.5, room.y0 + 0.5), (room.x1 - 0.5, room.y1 - 0.5)
    walked = topdown.draw_path(plan, [start, stop], colour=(1, 2, 3))
    column, row = walked.pixel(*stop)
    assert tuple(walked.image[int(row), int(column)]) == (1, 2, 3)
    for other in (
        topdown.label_rooms(plan, scene.house),
        topdown.mark_objects(plan, scene, goal=scene.objects[0].category),
        topdown.draw_view(plan, *start, 0.5),
    ):
        assert other.image.shape == before.shape
        assert np.any(other.image != before)
    np.testing.assert_array_equal(plan.image, before)


@pytest.mark.parametrize("house", range(4))
def test_labels_keep_clear_of_rings(house) -> None:
    scene = HouseDataset("val", "small").scene(house, 0)
    plan = topdown.draw_map(scene, 60.0)
    rings = topdown.mark_objects(plan, scene, names=False).image
    labelled = topdown.mark_objects(plan, scene).image
    assert np.any(labelled != rings)
    ringed_HW = np.any(rings != plan.image, axis=2)
    np.testing.assert_array_equal(labelled[ringed_HW], rings[ringed_HW])


def test_only_the_goal_is_ringed_where_it_alone_is_asked_for(scene) -> None:
    plan = topdown.draw_map(scene, 60.0)
    goal = scene.objects[0].category
    drawn = topdown.mark_objects(plan, scene, names=False, goal=goal).image
    changed_HW = np.any(drawn != plan.image, axis=2)
    for item in scene.objects:
        column, row = (round(value) for value in plan.pixel(item.x, item.y))
        near = changed_HW[max(row - 30, 0) : row + 30, max(column - 30, 0) : column + 30]
        assert item.category != goal or near.any()
    rows, columns = np.nonzero(changed_HW)
    goals = np.array([plan.pixel(o.x, o.y) for o in scene.objects if o.category == goal])
    away = np.hypot(columns[:, None] - goals[:, 0], rows[:, None] - goals[:, 1]).min(axis=1)
    assert away.max() < 40


def test_scale_is_a_metre_long(scene) -> None:
    plan = topdown.draw_scale(topdown.draw_map(scene, 60.0))
    ink_HW = np.all(plan.image[-30:] == topdown.INK, axis=2)
    lines = ("".join("x" if inked else " " for inked in row) for row in ink_HW)
    longest = max(len(part) for line in lines for part in line.split(" "))
    assert longest == pytest.approx(60, abs=1)


def test_map_on_axes_is_in_metres(scene) -> None:
    figure, axes = plt.subplots()
    topdown.plot_map(axes, scene, 20.0)
    assert axes.get_xlim() == (0.0, scene.house.extent[0])
    assert axes.get_ylim() == (0.0, scene.house.extent[1])
    plt.close(figure)


def test_map_refuses_a_scale_of_nothing(scene) -> None:
    with pytest.raises(ValueError, match="pixels_per_metre must be positive, got 0"):
        topdown.draw_map(scene, 0.0)


def test_command_writes_map_sheet_and_video(tmp_path, capsys) -> None:
    out = tmp_path / "pictures"
    options = "--split val --house 1 --size small --resolution 63 --video --out".split()
    assert main([*options, str(out)]) == 0
    said = capsys.readouterr().out
    assert "relic-houses-v1/small-readable/val, house 1 (seed 4)" in said
    assert "found after" in said
    with Image.open(out / "map.png") as plan, Image.open(out / "frames.png") as frames:
        assert min(plan.size) > 300
        assert min(frames.size) > 100
    video = iio.imread(out / "walk.mp4", plugin="FFMPEG")
    assert len(video) > 3
    assert video[0].std() > 10.0
    assert capsys.readouterr().err == ""


def test_command_names_a_house_that_is_not_there(tmp_path, capsys) -> None:
    assert main(["--house", "1000", "--size", "small", "--out", str(tmp_path)]) == 2
    assert "index must lie in [0, 1000), got 1000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arrangement", "-1"], r"seed must lie in \[0, 2\*\*62\), got -1"),
        (["--resolution", "3"], r"resolution: must be .* in \[8, 1024\], got 3"),
        (["--out", "/dev/null/pictures"], "Not a directory"),
    ],
)
def test_command_names_what_is_wrong_with_its_options(options, message, tmp_path, capsys) -> None:
    assert main(["--size", "small", "--out", str(tmp_path), *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_half_blocks_hold_two_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    text = terminal.blocks(image)
    assert text.count("▀") == 2
    assert "\x1b[38;2;0;1;2m\x1b[48;2;6;7;8m" in text
    assert "\x1b[38;2;3;4;5m\x1b[48;2;9;10;11m" in text


def test_walking_by_hand_follows_keys_and_counts_finds() -> None:
    env = HousesEnv(split="val", size="small", houses=[4], resolution=16)
    shown: list[str] = []
    found = terminal.walk(env, 0, iter("wad?" + "e" * 200 + "q"), shown.append)
    assert "'?' is not a key" in shown[4]
    assert "Last move: turn right" in shown[3]
    assert len(found) >= 1
    assert found[0]
    assert sum(found) >= 0.8 * len(found)
    assert terminal.walk(env, 0, iter(" q"), shown.append) == [False]
    env.close()


def test_episodes_walked_by_hand_are_kept_as_demonstrations(tmp_path) -> None:
    dataset = HouseDataset("val", "small")
    env = HousesEnv(split="val", size="small", resolution=16)
    path = tmp_path / "walks.jsonl"
    # Trial 1003 is the second arrangement of house 3; its older episodes give way to newer ones.
    for trial, keys in ((2, " "), (1003, "wa a dd q"), (1003, "dw  w")):
        terminal.walk(env, trial, iter(keys), lambda text: None, keep_in(path, dataset, trial))
    kept = read_demonstrations(path)
    typed = {where: taken.tolist() for where, taken in kept.actions.items()}
    assert typed == {(2, 0): [0], (1003, 0): [3, 1, 0], (1003, 1): [0]}
    # They are the same episodes for whoever takes the actions again.
    records = rehearse(kept, HousesEnv(split="val", size="small").vector, [1003], 2)
    assert [r["length"] for r in records] == [3, 1]
    other = HouseDataset("test", "small")
    with pytest.raises(DemonstrationError, match="must hold demonstrations of relic-houses"):
        keep_in(path, other, 0)
    env.close()


def test_arrow_keys_are_keys() -> None:
    typed = iter("r\x1b[A\x1b[C\x1b[D\x1b[Bq")
    assert list(terminal.with_arrows(typed)) == ["r", "w", "d", "a", "\x1b[B", "q"]


def read_until(handle: int, text: str) -> str:
    """Read from a terminal until a text has come."""
    seen = b""
    while text.encode() not in seen:
        assert select.select([handle], [], [], 60)[0], f"no {text!r} after {seen!r}"
        seen += os.read(handle, 1 << 16)
    return seen.decode(errors="replace")


@pytest.fixture
def pseudo_terminal() -> Iterator[tuple[int, int, list[Any]]]:
    """A terminal's two ends, what a person holds and what a program is given; its settings."""
    parent, child = pty.openpty()
    yield parent, child, termios.tcgetattr(child)
    os.close(parent)
    os.close(child)


@pytest.fixture
def walking(pseudo_terminal) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "envs.houses.show", "--size", "small", "--walk"]
    process = subprocess.Popen(
        command,
        stdin=pseudo_terminal[1],
        stdout=pseudo_terminal[1],
        stderr=subprocess.PIPE,
        # What a shell starts in the background ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    yield process
    process.kill()
    process.communicate()


def test_walk_runs_in_a_terminal_and_leaves_it_as_it_was(pseudo_terminal, walking) -> None:
    parent, child, before = pseudo_terminal
    # A key pressed while the program starts counts like any other.
    os.write(parent, b"w")
    assert "▀" in read_until(parent, "press space.")
    read_until(parent, "Last move: forward.")
    os.write(parent, b"\x1b[C")
    read_until(parent, "Last move: turn right.")
    walking.send_signal(signal.SIGINT)
    assert walking.communicate(timeout=60)[1] == b""
    assert walking.returncode == 0
    assert termios.tcgetattr(child) == before


def test_ctrl_c_while_it_starts_is_told_in_a_line(tmp_path) -> None:
    showing = subprocess.Popen(
        [sys.executable, "-m", "envs.houses.show", "--out", str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    maps = Path(f"/proc/{showing.pid}/maps")
    deadline = time.monotonic() + 120
    while "llvmlite" not in maps.read_text():  # what is imported first of what takes long
        assert showing.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    showing.send_signal(signal.SIGINT)
    _, said = showing.communicate(timeout=60)
    assert (said, showing.returncode) == ("Interrupted.\n", 128 + signal.SIGINT)


def test_a_disk_that_refuses_is_told_in_a_line(tmp_path) -> None:
    (tmp_path / "map.png").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "envs.houses.show", "--size", "small", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Is a directory" in done.stderr
    assert done.stderr.count("\n") == 1
