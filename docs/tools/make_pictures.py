"""Make the pictures of the README from the agents that ship.

    python docs/tools/make_pictures.py runs/pictures

evaluates both agents, their experts and random actions, which takes some minutes, and writes
`learning_in_context.png` and `agent_in_house.webp` into `docs/images`.

Shapes: N rows, T steps of an episode.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs.houses.env import HousesVectorEnv
from envs.houses.show.topdown import INK, PAPER, Frame, draw_path, draw_view
from envs.make import make_trial_env
from relic.evaluate import evaluate
from relic.evaluation.maps import map_of, read_track
from relic.evaluation.protocol import Protocol, load_protocol
from relic.evaluation.records import Record, read_records
from relic.evaluation.report.plots import AGENT, CONTROL, band
from relic.figures import DPI, draw_reference, episodes_axis, panels, score_axis
from relic.files import PROJECT

IMAGES = PROJECT / "docs" / "images"
TRIAL = 30
"""The house of the film: one in which the agent gained much from its context."""
EPISODES = (0, 2, 5, 11)
SIDE, BAR, GAP = 300, 34, 8
FONT = ImageFont.load_default(17)
GOOD, BAD = (0, 120, 85), (190, 70, 0)


@dataclass(frozen=True, slots=True)
class Shown:
    """One panel of the figure."""

    title: str
    run: str
    protocol: str
    measure: str


SHOWN = (
    Shown("Darkroom: 20 unseen goals", "darkroom", "darkroom_test", "return"),
    Shown("Houses: 100 unseen houses", "houses_small", "houses_small_changing", "success"),
)


def evaluated(shown: Shown, directory: Path) -> tuple[dict[str, Any], float]:
    """Return the summary of an agent, and what the expert reaches in the mean."""
    out, expert = directory / shown.run, directory / f"{shown.run}_expert"
    agent = [f"run=pretrained/{shown.run}", f"protocol={shown.protocol}", f"out={out}"]
    if shown.run == "houses_small":
        agent.append(f"replay=[{TRIAL}]")
    # The expert needs no pictures; Darkroom has no sensors to leave out.
    blind = ["options.sensors=[]"] if shown.run == "houses_small" else []
    for keys in (
        agent,
        ["expert=full", f"protocol={shown.protocol}", f"out={expert}", "controls=[]", *blind],
    ):
        if evaluate(keys):
            raise SystemExit(f"eval.py {' '.join(keys)} failed.")
    level = _summary(expert)["metrics"][shown.measure]["mean"]
    return _summary(out), float(np.mean(level))


def _summary(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "summary.json").read_text())


def chance(protocol: Protocol, measure: str) -> float:
    """Return what random actions reach in the mean over the trials of a protocol."""
    options = {**protocol.options, **({"sensors": ()} if "Houses" in protocol.env else {})}
    env = make_trial_env(protocol.env, protocol.trials, options)
    rng = np.random.default_rng(protocol.seed)
    trials = np.arange(protocol.first_trial, protocol.first_trial + protocol.trials)
    env.reset(seed=0)
    env.reset(options={"new_trial": np.ones(protocol.trials, bool), "trial": trials})
    assert protocol.episodes is not None
    records: list[Record] = []
    while len({(r["trial"], r["episode"]) for r in records}) < protocol.trials * protocol.episodes:
        infos = env.step(rng.integers(env.single_action_space.n, size=protocol.trials))[-1]  # type: ignore[attr-defined]
        for row in np.flatnonzero(infos.get("_episode_record", ())):
            record = {name: values[row] for name, values in infos["episode_record"].items()}
            if record["episode"] < protocol.episodes:
                records.append({"repeat": 0, **record})
    env.close()
    return float(np.mean([record[measure] for record in records]))


def draw_learning(directory: Path) -> list[Record]:
    """Draw what agents gain from their context; return the records of the houses."""
    figure, axes = panels(1, len(SHOWN), width=10, height=4)
    for each, shown in zip(axes[0], SHOWN, strict=True):
        summary, expert = evaluated(shown, directory)
        curve = summary["metrics"][shown.measure]
        cleared = {part: curve[f"cleared_{part}"] for part in ("mean", "low", "high")}
        band(each, curve, AGENT, label="the agent")
        band(each, cleared, CONTROL, label="the agent, context cleared before each episode")
        random = chance(load_protocol(shown.protocol), shown.measure)
        draw_reference(each, expert, "expert that knows the map and the goal", line="--")
        draw_reference(each, random, "random actions", line=":")
        each.set_title(shown.title, fontsize=11)
        score_axis(each, shown.measure)
        each.set_ylim(bottom=-0.03 * each.get_ylim()[1])  # random actions are hardly above zero
        episodes_axis(each)
        print(f"{shown.run}: expert {expert:.3f}, random actions {random:.4f}")
    handles, texts = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(IMAGES / "learning_in_context.png", dpi=DPI)
    with Image.open(IMAGES / "learning_in_context.png") as picture:
        picture.convert("RGB").quantize(128).save(picture.filename, optimize=True)
    return read_records(directory / "houses_small" / "records.jsonl")


def film(directory: Path, records: list[Record]) -> None:
    """Film some episodes of one house: what the agent sees, and the map with its way so far."""
    protocol = load_protocol("houses_small_changing")
    env = make_trial_env(protocol.env, 1, protocol.options)
    assert isinstance(env, HousesVectorEnv)
    env.reset(seed=0)
    env.reset(options={"new_trial": np.ones(1, bool), "trial": np.array([TRIAL])})
    own = {r["episode"]: r for r in records if r["trial"] == TRIAL and r["repeat"] == 0}
    track = read_track(directory / "houses_small", TRIAL)
    frames: list[Image.Image] = []
    lasting: list[int] = []
    for episode in EPISODES:
        record, pose_T4 = own[episode], track.episodes[episode]
        trial_map = map_of(env)
        plan = trial_map.picture(record["goal"], side=SIDE).plan
        name = env.goal_categories[record["goal"]].replace("_", " ")
        views = list(trial_map.views(env, pose_T4, SIDE) or ())
        for step in range(0, len(pose_T4), 2):
            drawn = draw_path(plan, pose_T4[: step + 1, :2])
            x, y, heading, _ = (float(value) for value in pose_T4[step])
            text = f"episode {episode + 1}: find the {name}, step {step}"
            frames.append(_frame(views[step], draw_view(drawn, x, y, heading).image, text, INK))
            lasting.append(110)
        found = bool(record["success"])
        text = f"episode {episode + 1}: {name} {'' if found else 'not '}found"
        text += f" in {record['length']} steps"
        x, y, heading, _ = (float(value) for value in pose_T4[-1])
        last = draw_view(draw_path(plan, pose_T4[:, :2]), x, y, heading).image
        frames.append(_frame(views[-1], last, text, GOOD if found else BAD))
        lasting.append(1600)
    env.close()
    frames[0].save(
        IMAGES / "agent_in_house.webp", save_all=True, append_images=frames[1:], loop=0,
        duration=lasting, quality=60, method=6,
    )  # fmt: skip


def _frame(view: Frame, plan: Frame, text: str, colour: tuple[int, int, int]) -> Image.Image:
    width = view.shape[1] + GAP + plan.shape[1]
    height = BAR + max(view.shape[0], plan.shape[0])
    image = Image.new("RGB", (width, height), PAPER)
    ImageDraw.Draw(image).text((6, BAR / 2), text, colour, FONT, anchor="lm")
    image.paste(Image.fromarray(view), (0, BAR))
    image.paste(Image.fromarray(plan), (view.shape[1] + GAP, BAR))
    return image


def main() -> None:
    """Evaluate what is missing, then draw."""
    parser = argparse.ArgumentParser(description="Make the pictures of the README.")
    parser.add_argument("directory", type=Path, help="where evaluations go")
    directory = parser.parse_args().directory
    film(directory, draw_learning(directory))


if __name__ == "__main__":
    main()
