"""When and how replay, video and report say how an episode went."""

import json
import shutil
import subprocess

import imageio.v3 as iio
import numpy as np
import pytest

from envs.darkroom import DarkroomVectorEnv
from relic.evaluate import evaluate as main
from relic.evaluation.curves import summarise
from relic.evaluation.maps import DarkroomMap, Track
from relic.evaluation.report.page import page
from relic.evaluation.report.plots import plot_summary
from relic.evaluation.report.replay import SCRIPT, outcome, replay_data
from relic.evaluation.report.side_by_side import Entry, write_side_by_side
from tests.evaluation.conftest import HORIZON
from tests.evaluation.test_cli import SMALL
from tests.evaluation.test_report import FACTS


def walk(goal, actions):
    """Walk through an episode of a room of four; return its record, poses and first find."""
    env = DarkroomVectorEnv(1, size=4, horizon=len(actions), split="train_all")
    (trial,) = np.flatnonzero(env.goals == goal)
    env.reset(options={"trial": np.array([trial])})
    poses, found = [], None
    for step, action in enumerate(actions):
        poses.append(DarkroomMap(4).poses(env, env.observe())[0])
        _, reward, *_, infos = env.step(np.array([action]))
        if found is None and reward[0] > 0:
            found = step + 1
    record = {name: value[0].item() for name, value in infos["episode_record"].items()}
    return record, np.array(poses), found


EAST, WEST, STAY = 1, 2, 0


@pytest.mark.parametrize(
    "actions",
    [
        [EAST, EAST, WEST, EAST, STAY],
        [STAY, STAY, STAY, EAST, EAST],  # by the last action
        [STAY, EAST, WEST, STAY, EAST],  # never
    ],
)
def test_a_darkroom_says_when_the_goal_was_first_reached(actions):
    record, poses, found = walk(2 * 4, actions)
    assert DarkroomMap(4).found_after(record, poses) == found
    words = {None: "not found in 5 steps", 5: "found in 5 steps"}
    want = words.get(found, f"first found after {found} of 5 steps")
    assert outcome(record, found).startswith(want + ",")
    env = DarkroomVectorEnv(1, size=4, split="train_all")
    data = replay_data(env, Track(record["trial"], (poses,)), [record])
    assert data["episodes"][0]["outcome"].startswith(want + ",")


def test_a_goal_where_the_episode_begins_is_found_by_a_step():
    record = {"success": True, "goal": 0, "length": 4}
    poses = np.zeros((4, 4))
    assert DarkroomMap(4).found_after(record, poses) == 1
    poses[1:3, 0] = 1.0
    assert DarkroomMap(4).found_after(record, poses) == 3


STUB = """
const made = {};
const element = () => new Proxy({ children: [], clientWidth: 10, value: "10", checked: false }, {
  get: (own, name) => (name in own ? own[name] : typeof name === "string" ? () => context : null),
});
const context = new Proxy({}, { get: () => () => 0, set: () => true });
globalThis.window = { addEventListener() {} };
globalThis.Image = class {};
globalThis.document = {
  getElementById: (id) => (made[id] ??= id === "replays" ? { textContent: DATA } : element()),
  createElement: element,
};
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_replay_says_the_outcome_at_the_last_step_only():
    episode = {"goals": [], "success": True, "outcome": "found", "x": [0, 1, 2], "y": [0, 0, 0]}
    trial = {"name": "Trial 0", "map": "", "left": 0, "right": 1, "bottom": 0, "top": 1, "unit": 1}
    data = json.dumps([{**trial, "episodes": [episode]}])
    watch = """
    const said = [made["replay-outcome"].textContent];
    for (const value of ["1", "2", "0"]) {
      made["replay-step"].oninput({ target: { value } });
      said.push(made["replay-outcome"].textContent);
    }
    console.log(JSON.stringify(said));
    """
    script = f"const DATA = {json.dumps(data)};\n{STUB}\n{SCRIPT.read_text()}\n{watch}"
    done = subprocess.run(
        ["node", "-"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["", "", "found", ""]


def test_films_say_the_outcome_at_the_last_step_only(run, tmp_path):
    out = tmp_path / "out"
    arguments = [f"run={run}", f"out={out}", *SMALL, "controls=[]", "replay=[]"]
    assert main([*arguments, "videos=[0/1]"]) == 0
    film = iio.imread(out / "videos" / "trial-000000-episode-001.mp4", plugin="FFMPEG")
    caption = film[:, :18].astype(float)
    assert len(film) == HORIZON
    changes = np.abs(np.diff(caption, axis=0)).mean((1, 2, 3))
    assert changes[:-1].max() < 1.0 < 5.0 < changes[-1]


def records(**measures):
    """Two trials of three episodes with measures by trial and episode."""
    return [
        {"trial": t, "repeat": 0, "episode": e, **{n: v[t][e] for n, v in measures.items()}}
        for t in range(2)
        for e in range(3)
    ]


VARIED = [[0.1, 0.5, 0.7], [0.2, 0.6, 0.3]]
SAME = [[0.1, 0.1, 0.1]] * 2


def test_what_never_varies_has_no_plot(tmp_path):
    own = records(**{"return": VARIED, "length": [[100] * 3] * 2, "success": [[True] * 3] * 2})
    summary = {**FACTS, **summarise(own)}
    assert set(summary["metrics"]) == {"return", "length", "success"}
    plots = plot_summary(summary, tmp_path)
    assert [plot.name for plot in plots] == ["return.png"]
    text = page(summary, plots, run="r")
    assert text.count("without a plot: success (1), length (100).") == 1
    assert "<h2>length</h2>" not in text
    assert "<h2>return</h2>" in text
    assert "without a plot" not in page(
        {**FACTS, **summarise(records(**{"return": VARIED}))}, [], run="r"
    )


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (VARIED, True),
        (SAME, False),
        ([[0.1] * 3, [0.2] * 3], True),  # trials that differ
        ([[0.1, 0.1, 0.2], [0.1, 0.1, 0.1]], True),
    ],
)
def test_a_measure_is_plotted_where_anything_of_it_varies(values, shown, tmp_path):
    own = records(**{"return": values})
    assert bool(plot_summary({**FACTS, **summarise(own)}, tmp_path)) == shown


def test_comparisons_plot_what_differs_between_agents(tmp_path):
    def entry(name, measure):
        own = records(**{"return": measure})
        return Entry(run=name, checkpoint="c", summary={**FACTS, **summarise(own)}, records=own)

    write_side_by_side([entry("a", SAME), entry("b", SAME)], tmp_path / "same")
    assert not list((tmp_path / "same" / "plots").glob("*.png"))
    write_side_by_side([entry("a", SAME), entry("b", VARIED)], tmp_path / "other")
    assert [p.name for p in (tmp_path / "other" / "plots").glob("*.png")] == ["return.png"]
