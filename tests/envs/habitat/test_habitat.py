"""ExtObjNav over Habitat workers: everything but habitat-sim itself, whose place a plain simulator
takes at the worker's lowest layer."""

import ast
import math
import re
import sys

import gymnasium
import numpy as np
import pytest

from envs import check_trial_env
from envs.habitat.env import HabitatEnv
from envs.habitat.setting import GeometryName, base_rules, make_geometry
from envs.habitat.start import SERVER_FILE, HabitatStartError, check_simulator, explain
from envs.make import make_trial_env
from envs.objectnav.config import Action, ObjectNavConfig
from envs.objectnav.rules import gps
from tests.envs.habitat.habitat_tools import PLACES, PLAIN, SMALL, make, write_dataset
from tests.envs.objectnav.slow_detections import directions, slow_detections, slow_scan

LONG = {**SMALL, "max_episode_steps": 100}
SENSORS = ["rgb", "depth", "semantic", "instance"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_dataset(folder)
    return folder


@pytest.fixture
def build(root):
    """Build environments over the tiny dataset, and close them."""
    built = []

    def make_one(num_envs=1, **options):
        built.append(make(root, num_envs, **options))
        return built[-1]

    yield make_one
    for env in built:
        env.close()


def play(env, steps, seed=0):
    """Return what rows see, earn and record for random actions that seldom stop."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        actions = rng.choice(6, env.num_envs, p=[0.04, 0.46, 0.15, 0.15, 0.1, 0.1])
        obs, reward, terminated, truncated, infos = env.step(actions)
        record = infos.get("episode_record", {})
        seen.append([{k: v.copy() for k, v in obs.items()}, reward, terminated, truncated, record])
    return seen


def test_worker_files_are_python_3_9_and_need_numpy_and_habitat_sim_only():
    files = [*SERVER_FILE.parent.glob("*.py"), PLAIN]
    own = {f.stem for f in files}
    for file in files:
        names = set()
        for node in ast.walk(ast.parse(file.read_text(), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
        allowed = {"numpy", "habitat_sim"} if file.stem == "habitat_backend" else {"numpy"}
        assert names <= set(sys.stdlib_module_names) | allowed | own, file
        assert "from __future__ import annotations" in file.read_text()


def test_contract(build):
    check_trial_env(build(3), make=build)


def test_contract_of_detections(build):
    options = {"sensors": ["detections"], "compass": True}
    check_trial_env(build(2, **options), make=lambda num_envs, **o: build(num_envs, **options, **o))


@pytest.mark.parametrize("geometry", ["paper", "released"])
def test_detections_are_what_the_pictures_show(build, geometry):
    sensors = ["depth", "semantic", "instance", "detections"]
    both = build(2, sensors=sensors, geometry=geometry, resolution=[32, 48])
    alone = build(2, sensors=["detections"], geometry=geometry, resolution=[32, 48])
    told, same = both.reset()[0], alone.reset()[0]
    found, goals = 0, 0
    for action_N in np.random.default_rng(3).integers(0, 6, (60, 2)):
        for name, value in same.items():
            np.testing.assert_array_equal(told[name], value)
        for n in range(2):
            heading, eye = both.agents.pose_N4[n, 2], both.setting.geometry.eye[0]
            images = [told[name][n] for name in sensors[:3]]
            pitch = both.setting.geometry.pitch(both.agents.tilt_N[n])
            rays = directions((32, 48), math.radians(both.rules.hfov_deg), heading, pitch)
            slow = slow_detections(*images, rays, heading)
            found += slow[:, 0].sum()
            got = told["detections"][n].reshape(20, 4)
            np.testing.assert_allclose(got[:, :2], slow[:, :2])
            seen = slow[:, 0] > 0
            np.testing.assert_allclose(got[seen, 2] - eye, slow[seen, 2], 1e-4, 1e-4)
            np.testing.assert_allclose(got[seen, 3], slow[seen, 3], 1e-4, 1e-4)
            np.testing.assert_allclose(told["depth_scan"][n], slow_scan(images[0]), 1e-6)
            if told["goal_detection"][n, 0]:
                # Where the scene's file puts an instance of what is asked for, but its near side.
                origin = both.task_rows.history[n].origin
                goal, place = both.agents.goal[n], both.agents.place[n]
                x, y = place.centers_I3[list(goal.instances), :2].T
                where = gps(x, y, [np.full(len(x), o) for o in origin[:3]])
                assert np.linalg.norm(where - told["goal_detection"][n, 3:], axis=1).min() < 0.2
                goals += 1
        told, same = both.step(action_N)[0], alone.step(action_N)[0]
    assert found > 20
    assert goals > 3


def test_a_state_goes_on_with_who_was_named(build):
    env, other = (build(2, sensors=["detections"]) for _ in range(2))
    env.reset()
    play(env, 50)
    other.load_state_dict(env.state_dict())
    assert env.detections.turn_NC.max() > 3
    np.testing.assert_array_equal(env.detections.turn_NC, other.detections.turn_NC)
    for one, two in zip(play(env, 40, seed=1), play(other, 40, seed=1), strict=True):
        for name, value in one[0].items():
            np.testing.assert_array_equal(value, two[0][name])


def test_what_is_seen_moved_and_earned(build, root):
    env = build(1, sensors=SENSORS, compass=True, prev_reward=True)
    obs, _ = env.reset(options={"trial": np.array([0])})
    assert obs["gps"].tolist() == [[0.0, 0.0]]
    assert env.num_trials == 3
    agents, config = env.agents, env.rules
    rng = np.random.default_rng(0)
    bumped = 0
    for action in rng.choice([1, 2, 3, 4, 5], 25, p=[0.5, 0.2, 0.1, 0.1, 0.1]):
        before, distance = agents.pose_N4[0].copy(), agents.distance_N[0]
        obs, reward, *_ = env.step([action])
        after = agents.pose_N4[0]
        turn = {Action.TURN_LEFT: config.turn, Action.TURN_RIGHT: -config.turn}.get(action, 0.0)
        assert math.isclose(math.cos(after[2] - before[2] - turn), 1.0)
        if action == Action.FORWARD:
            straight = before[:2] + 0.25 * np.array([math.cos(before[2]), math.sin(before[2])])
            bumped += not np.allclose(after[:2], straight)
        else:
            assert np.array_equal(after[:2], before[:2])
        progress = distance - agents.distance_N[0] - 0.001
        assert reward[0] == pytest.approx(progress, abs=1e-6)
        assert obs["prev_reward"][0, 0] == reward[0]
        shown = obs["instance"][0] > 0
        assert ((obs["semantic"][0] >= 100) <= shown).all()
    assert 0 < bumped < 12


def test_success_needs_pixels_of_an_instance_that_is_near(build):
    env = build(1, sensors=["instance"], resolution=64, task=LONG)
    env.reset(options={"trial": np.array([0])})
    outcomes = set()
    for seed in range(40):
        obs = env.observe()
        for action in np.random.default_rng(seed).choice([1, 2, 3, 5], seed % 7):
            obs = env.step([action])[0]
        while seed % 2 and (action := env.expert_actions()[0]) != Action.STOP:
            obs = env.step([action])[0]
        for _ in range(6 if seed % 4 == 1 else 0):  # turn away
            obs = env.step([Action.TURN_LEFT])[0]
        goal = env.agents.goal[0].instances  # one bowl and one apple here
        x, y = env.agents.pose_N4[0, :2]
        place = PLACES["east"][0][goal[0]]
        near = math.hypot(place[1] - x, place[2] - y) <= 2.0
        seen = (obs["instance"][0] == goal[0] + 1).sum() >= SMALL["success_pixels"]
        _, reward, terminated, _, infos = env.step([Action.STOP])
        assert terminated[0]
        success = bool(infos["episode_record"]["success"][0])
        assert success == (near and seen)
        assert (reward[0] > 1.5) == success
        outcomes.add((near, bool(seen)))
    assert len(outcomes) == 4


def test_the_expert_finds_everything(build):
    env = build(3)
    env.reset(options={"trial": np.arange(3)})
    records = []
    for _ in range(60):
        infos = env.step(env.expert_actions())[4]
        for row in np.flatnonzero(infos.get("_episode_record", [])):
            records.append({k: v[row] for k, v in infos["episode_record"].items()})
    assert len(records) >= 8
    assert all(r["success"] for r in records)
    assert np.mean([r["spl"] for r in records]) > 0.8
    assert {int(r["scene"]) for r in records} == {0, 1}
    assert sorted({round(r["area"], 2) for r in records}) == [13.0, 16.75]


def test_asking_the_expert_changes_nothing(build):
    seen = []
    for ask in (False, True):
        env = build(1)
        env.reset(options={"trial": np.array([1])})
        rewards = []
        for action in np.random.default_rng(1).choice([1, 1, 2, 3], 25):
            if ask:
                env.expert_actions()
            rewards.append(env.step([action])[1][0])
        seen.append(rewards)
    assert seen[0] == seen[1]


def test_rows_do_not_depend_on_each_other(build):
    together = build(3, sensors=["depth"])
    together.reset(seed=5)
    all_rows = play(together, 40)
    for row in range(3):
        alone = build(1, sensors=["depth"], first_row=row)
        alone.reset(seed=5)
        rng = np.random.default_rng(0)
        for obs, reward, terminated, truncated, _ in all_rows:
            actions = rng.choice(6, 3, p=[0.04, 0.46, 0.15, 0.15, 0.1, 0.1])
            got, r, te, tr, _ = alone.step(actions[[row]])
            assert all(np.array_equal(v[0], obs[k][row]) for k, v in got.items())
            assert (r[0], te[0], tr[0]) == (reward[row], terminated[row], truncated[row])


def test_a_killed_worker_ends_its_episode_and_nothing_else(build):
    def run(kill):
        env = build(2)
        env.reset(options={"trial": np.array([0, 2])})
        seen = []
        for step in range(20):
            if kill and step == 7:
                env.pool.workers[0].process.kill()
            seen.append(env.step([1, 1 if step % 3 else 2]))
        return env, seen

    _, calm = run(kill=False)
    env, seen = run(kill=True)
    assert env.crashes.total_N.tolist() == [1, 0]
    for step, (a, b) in enumerate(zip(calm, seen, strict=True)):
        for k in a[0]:
            assert np.array_equal(a[0][k][1], b[0][k][1])
            assert step >= 7 or np.array_equal(a[0][k][0], b[0][k][0])
    record = seen[7][4]["episode_record"]
    assert seen[7][3].tolist() == [True, False]
    assert record["crashed"][0]
    assert not record["success"][0]
    assert (env.trial[0], env.episode[0]) == (0, 1)


BROKEN = {
    "depth": ("        return {name: images", "        images['depth'][0, 0] += {}\n"),
    "distance": (
        "        return lambda position: float(",
        "        return lambda position: {} + (",
    ),
    "position": ("        return here\n", "        here = here + {}\n"),
}
ODD = """
CALLS = []
def odd():
    CALLS.append(1)
    return math.nan if len(CALLS) == 9 else 0.0
"""


@pytest.mark.parametrize("what", BROKEN)
def test_a_simulator_that_gives_nan_has_crashed(build, tmp_path, what):
    before, instead = BROKEN[what]
    instead = instead.format("odd()") + ("" if what == "distance" else before)
    text = PLAIN.read_text()
    assert before in text
    # Nowhere is at no distance, so that only the position tells.
    text = text.replace("field[self.cell(self.snap(position))])", "0 if np.isnan(position).any() "
                        "else field[self.cell(self.snap(position))])")  # fmt: skip
    (tmp_path / "odd.py").write_text(
        text.replace(before, instead).replace("FIRST_ID = ", ODD + "\nFIRST_ID = ", 1)
    )
    env = build(2, backend=tmp_path / "odd.py", sensors=["depth"])
    env.reset(options={"trial": np.array([0, 2])})
    records = []
    for actions in [[1, 1]] * 12 + [[2, 2]] * 8:
        observation, reward, *_, infos = env.step(actions)
        assert np.isfinite(reward).all()
        assert all(np.isfinite(value).all() for value in observation.values())
        if infos:
            records += [v for v in infos["episode_record"]["crashed"][infos["_episode_record"]]]
            assert all(np.isfinite(infos["episode_record"][k]).all() for k in ("spl", "return"))
    assert sum(records) >= 1  # the plan of an episode asks for distances, too
    assert (env.crashes.total_N <= 1).all()
    fresh = build(2, backend=tmp_path / "odd.py", sensors=["depth"])
    fresh.load_state_dict(env.state_dict())
    assert fresh.crashes.in_a_row_N.tolist() == env.crashes.in_a_row_N.tolist()


@pytest.mark.parametrize("steps", [4, 47])
def test_state_continues_bit_for_bit(build, steps):
    options = {"sensors": ["rgb"], "task": {**SMALL, "start": "previous_end"}}
    env = build(2, **options)
    env.reset(seed=3)
    play(env, steps)
    state = env.state_dict()
    rest = play(env, 25, seed=9)
    fresh = build(2, **options)
    fresh.load_state_dict(state)
    for a, b in zip(rest, play(fresh, 25, seed=9), strict=True):
        for x, y in zip(a[:1], b[:1], strict=True):
            assert all(np.array_equal(x[k], y[k]) for k in x)
        assert all(np.array_equal(x, y) for x, y in zip(a[1:4], b[1:4], strict=True))
        assert a[4].keys() == b[4].keys()
        assert all(np.array_equal(a[4][k], b[4][k]) for k in a[4])
    other = build(2, task={**SMALL, "turn_deg": 45.0})
    with pytest.raises(ValueError, match="task of the state must be"):
        other.load_state_dict(state)


def test_a_state_holds_how_the_episode_before_ended(build):
    """At an episode's first step, which is all that shows it."""
    env = build(2, outcome=True)
    env.reset(seed=1)
    for _ in range(3):
        env.step(np.array([2, 2]))
    shown = env.step(np.array([0, 2]))[0]["outcome"]
    assert shown[0] != 0
    assert shown[1] == 0
    fresh = build(2, outcome=True)
    fresh.load_state_dict(env.state_dict())
    assert np.array_equal(fresh.observe()["outcome"], shown)


def test_viewpoints_are_computed_once(build, root, tmp_path):
    cache = tmp_path / "cache"
    first = build(1, cache=cache)
    first.reset(options={"trial": np.array([0])})
    files = list((cache / "viewpoints").iterdir())
    assert len(files) == 1
    place = first.places.known[0]
    assert [len(v) > 0 for v in place.viewpoints_I] == [True, True, False]  # the last is clutter
    assert place.goal_instances == {17: (0,), 10: (1,)}
    again = build(1, cache=cache)
    called = []
    call = again.pool.call
    again.pool.call = lambda rows, method, *args, **how: (
        called.append(method) or call(rows, method, *args, **how)
    )
    again.reset(options={"trial": np.array([0])})
    assert "open" in called
    assert "viewpoints" not in called
    same = again.places.known[0].viewpoints_I
    assert all(np.array_equal(a, b) for a, b in zip(place.viewpoints_I, same, strict=True))
    build(1, cache=cache, viewpoint_spacing=0.4).reset(options={"trial": np.array([0])})
    assert len(list((cache / "viewpoints").iterdir())) == 2


def test_a_scene_that_comes_with_another_navmesh_has_other_viewpoints(tmp_path):
    write_dataset(tmp_path)
    for found in (1, 2):
        env = make(tmp_path, 1, cache=tmp_path / "cache")
        env.reset(options={"trial": np.array([0])})
        env.close()
        assert len(list((tmp_path / "cache" / "viewpoints").iterdir())) == found
        navmesh = env.data.open(0).navmesh
        navmesh.write_bytes(navmesh.read_bytes() + b" ")


def test_released_geometry_is_that_of_the_papers_code(build):
    rules = base_rules(GeometryName.RELEASED)
    assert rules.turn_deg == pytest.approx(14.32, abs=0.01)
    camera = make_geometry(GeometryName.RELEASED, rules)
    down, up = [camera.start], [camera.start]
    for _ in range(4):
        down.append(camera.look(down[-1], up=False))
        up.append(camera.look(up[-1], up=True))
    degrees = [round(math.degrees(camera.pitch(t)), 1) for t in (*down, up[1])]
    assert degrees == [-21.8, -38.2, -53.7, -55.3, -55.3, -8.1]  # relic_method 1.3
    shifted = camera.look(camera.look(up[1], up=False), up=False)
    assert round(math.degrees(camera.pitch(shifted)), 1) == -45.1
    env = build(1, geometry="released", task=SMALL)
    env.reset(options={"trial": np.array([0])})
    heading = env.agents.pose_N4[0, 2]
    env.step([Action.TURN_LEFT])
    assert (env.agents.pose_N4[0, 2] - heading) % (2 * math.pi) == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"look_deg.*must stay at 30"):
        build(1, geometry="released", task={**SMALL, "look_deg": 15.0})


def test_paper_geometry_tilts_by_thirty_degrees():
    camera = make_geometry(GeometryName.PAPER, ObjectNavConfig())
    tilts = [camera.start]
    for up in (True, True, False, False, False, False):
        tilts.append(camera.look(tilts[-1], up=up))
    degrees = [round(math.degrees(camera.pitch(t))) for t in tilts]
    assert degrees == [0, 30, 30, 0, -30, -60, -60]


def test_names(root):
    options = {
        "scene_dataset": str(root / "tiny.scene_dataset_config.json"),
        "episodes": str(root / "episodes.json.gz"),
        "python": sys.executable,
        "backend": str(PLAIN),
        "resolution": 16,
    }
    env = make_trial_env("relic/Habitat-v0", 1, options)
    assert env.goal_categories[17] == "bowl"
    assert env.max_episode_steps == 500
    env.close()
    single = gymnasium.make("relic/Habitat-v0", **options)
    assert isinstance(single.unwrapped, HabitatEnv)
    assert single.unwrapped.max_episode_steps == 500
    single.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scene_dataset": None}, "scene_dataset: must name a file, got none"),
        ({"episodes": None}, "episodes: must name a file, got none"),
        ({"geometry": "papre"}, "geometry.*'papre'.*'paper'"),
        ({"navmesh": "fil"}, "navmesh.*'fil'.*'file'"),
        ({"gpus": []}, r"gpus: must be a list of CUDA devices.*got \[\]"),
        ({"gpus": [-2]}, r"gpus.*got \[-2\]"),
        ({"gpus": 0}, r"gpus.*got 0"),
        ({"viewpoint_spacing": 0}, r"viewpoint_spacing: must lie in \[0.05, 1\]"),
        ({"task": {"turn_degrees": 3}}, "turn_degrees"),
        ({"sensors": ["rbg"]}, "'rbg'.*'rgb'"),
        ({"resolution": 4}, "resolution.*got 4"),
        ({"python": "/no/such/python"}, "must name an interpreter that starts.*/no/such/python"),
    ],
)
def test_bad_options_are_named(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(1, **options)
    with pytest.raises(TypeError, match="image_lighting"):
        build(1, image_lighting=1)


def test_an_interpreter_without_habitat_sim_is_named(root):
    with pytest.raises(HabitatStartError, match=r"Habitat\.python: must name an interpreter that "
                       "has habitat_sim and numpy.*habitat_sim.*docs/HABITAT"):  # fmt: skip
        make(root, 1, backend=SERVER_FILE.parent / "habitat_backend.py")
    with pytest.raises(HabitatStartError, match="must name an interpreter that starts"):
        check_simulator("/no/such/python")


@pytest.mark.parametrize(
    "said",
    [
        "WindowlessContext: Unable to find CUDA device 0 among 1 EGL devices in total",
        "Platform::WindowlessEglApplication::tryCreateContext(): no EGL devices found",
    ],
)
def test_a_missing_device_is_named(root, tmp_path, said):
    backend = tmp_path / "dying.py"
    plain = PLAIN.read_text().replace(
        "    def start(self):\n        pass",
        f"    def start(self):\n        print({said!r}, flush=True)\n        os._exit(1)",
    )
    backend.write_text(plain)
    with pytest.raises(HabitatStartError) as refused:
        make(root, 1, backend=backend, gpus=[3])
    message = str(refused.value)
    assert message.startswith("Habitat.gpus: must name devices that EGL can draw on, got 3")
    assert said in message
    assert "gpus=[-1]" in message
    assert explain("something else", python="p", gpu=0) is None


def test_worker_errors_are_shown(root, tmp_path):
    backend = tmp_path / "raising.py"
    backend.write_text(
        PLAIN.read_text().replace("self.balls = []\n        nx", "raise OSError('rot')\n        nx")
    )
    env = make(root, 1, backend=backend, max_crashes=1)
    with pytest.raises(RuntimeError, match=re.compile("max_crashes=1.*rot", re.S)):
        env.reset()
    env.close()
