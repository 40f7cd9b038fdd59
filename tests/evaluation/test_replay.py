"""Tracks, and the pages that replay them, against trials that are walked again."""

import base64
import io
import json
import re

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from envs.darkroom import DarkroomVectorEnv
from envs.houses.show.topdown import WALL_COLOUR
from envs.make import make_trial_env
from relic.evaluate import evaluate as main
from relic.evaluation.evaluator import make_env, run_block
from relic.evaluation.maps import (
    DarkroomMap,
    Tracker,
    has_map,
    map_of,
    missing_tracks,
    read_track,
    replayed_trials,
    track_file,
)
from relic.evaluation.records import read_records
from relic.evaluation.report.replay import replay_data, replay_section
from relic.files import Seal
from relic.policy.config import PolicyConfig
from relic.policy.policy import Policy
from relic.schema import ConfigError, build
from tests.evaluation.conftest import HORIZON, OPTIONS, small_protocol
from tests.evaluation.test_cli import SMALL, files_of, refused
from tests.evaluation.test_report import Balance

HOUSES = {"split": "val", "resolution": 16, "task": {"max_episode_steps": 25}}


def test_tracks_are_where_the_actions_lead(policy, tmp_path):
    protocol = small_protocol()
    block = next(iter(protocol.blocks()))
    tracker, actions = Tracker(block, (2, 1)), []

    def watched(env, observation, starts_N, action_N):
        actions.append(action_N.copy())
        return tracker(env, observation, starts_N, action_N)

    env = make_env(protocol)
    records = list(run_block(policy, env, protocol, block, on_act=watched))
    assert records == list(run_block(policy, env, protocol, block))
    tracker.write(tmp_path)
    assert tracker.trials == [1, 2]
    for trial in (1, 2):  # which are rows 1 and 2 of the first block
        again = DarkroomVectorEnv(1, **{**OPTIONS, "split": "test"})
        again.reset(options={"trial": np.array([trial])})
        track = read_track(tmp_path, trial)
        assert [len(e) for e in track.episodes] == [HORIZON] * 4
        for t, pose in enumerate(np.concatenate(track.episodes)):
            x, y = (again.observe()["position"][0] + 1) * 1.5  # cells of a room of four
            np.testing.assert_allclose(pose[:2], (x, y), atol=1e-6)
            assert np.isnan(pose[2:]).all()
            again.step(actions[t][[trial]])


def test_only_the_first_repeat_is_tracked():
    blocks = list(small_protocol(trials=2, repeats=2, block=3).blocks())
    assert [Tracker(b, (0, 1)).trials for b in blocks] == [[0, 1], []]
    padded = small_protocol(trials=1, repeats=1, block=3).blocks()
    assert [Tracker(b, (0,)).trials for b in padded] == [[0]]


def test_blocks_without_their_tracks_are_known(tmp_path):
    protocol = small_protocol(trials=4, repeats=2, block=2)
    assert missing_tracks(tmp_path, protocol, (0, 3)) == {0, 1}
    file = track_file(tmp_path, 0)
    file.parent.mkdir()
    file.write_text(Seal(file.name).line)
    assert missing_tracks(tmp_path, protocol, (0, 3)) == {1}
    assert missing_tracks(tmp_path, protocol, ()) == set()


def test_pages_hold_the_replayed_trials(run, tmp_path):
    out = tmp_path / "out"
    arguments = [f"run={run}", f"out={out}", *SMALL, "controls=[]"]
    assert main([*arguments, "replay=[2]"]) == 0
    before = files_of(out)
    assert [n for n in before if n.startswith("tracks")] == ["tracks/trial-000002.jsonl"]
    trials = embedded(out)
    assert [t["name"] for t in trials] == ["Trial 2"]
    own = [r for r in read_records(out / "records.jsonl") if (r["trial"], r["repeat"]) == (2, 0)]
    for shown, record in zip(trials[0]["episodes"], own, strict=True):
        assert shown["success"] == record["success"]
        assert f"return {record['return']:.2f}" in shown["outcome"]
        assert shown["goals"] == [[100 * int(c) for c in divmod(record["goal"], 4)]]
        assert (len(shown["x"]), shown["x"][0], shown["y"][0]) == (HORIZON, 0, 0)
    # More trials are added by evaluating their blocks again, which changes nothing else.
    assert main([*arguments, "replay=[0,2]"]) == 0
    after = files_of(out)
    assert {k: v for k, v in after.items() if k in before and k != "report.html"} == {
        k: v for k, v in before.items() if k != "report.html"
    }
    assert [t["name"] for t in embedded(out)] == ["Trial 0", "Trial 2"]


def embedded(directory):
    text = (directory / "report.html").read_text()
    checker = Balance()
    checker.feed(text)
    assert checker.open == []
    return json.loads(re.findall(r'id="replays">(.*?)</script>', text)[0])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("replay=[0,3]", "replay: must name trials of the protocol, 0 to 2, got 3"),
        ("replay=[-1]", "got -1"),
        ("replay=3", "replay: must name trials of the protocol, 0 to 2, got 3"),
        ("videos=[3/0]", "videos: must name trials of the protocol, 0 to 2, got 3"),
        ("videos=[1/4]", "videos: must name one of the 4 episodes of a trial, got 1/4"),
        ("videos=[1]", "videos: must name episodes as TRIAL/EPISODE, got '1'"),
        ("videos=[one]", "videos: must name episodes as TRIAL/EPISODE, got 'one'"),
    ],
)
def test_trials_that_are_not_there_are_refused(run, capsys, argument, message):
    assert message in refused(capsys, f"run={run}", *SMALL, argument)
    assert not (run / "evaluations").exists()


def test_chosen_episodes_are_filmed(run, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"run={run}", f"out={out}", *SMALL, "controls=[]", "replay=[]"]
    assert main([*arguments, "videos=[2/3,0/1]"]) == 0
    files = sorted((out / "videos").iterdir())
    assert [f.name for f in files] == [
        "trial-000000-episode-001.mp4",
        "trial-000002-episode-003.mp4",
    ]
    assert 'id="replays"' not in (out / "report.html").read_text()
    film = iio.imread(files[1], plugin="FFMPEG")
    assert len(film) == HORIZON
    # The agent's red dot is where its track says; cells of the picture are 80 pixels wide.
    x, y = read_track(out, 2).episodes[3][-1][:2].astype(int)
    dot = film[-1, 20 + 40 + 80 * (3 - y), 40 + 80 * x]
    assert dot[0] > dot[1] + 80
    # Trials limited by steps may end before an episode that is asked for.
    steps = ["episodes=null", f"steps={2 * HORIZON + 1}", f"out={tmp_path / 'steps'}"]
    short = [a for a in arguments if a.partition("=")[0] not in ("episodes", "out")]
    assert main([*short, *steps, "videos=[1/2]"]) == 2
    assert "got 2 and 2 whole episodes" in capsys.readouterr().err


def test_environments_without_a_map_have_no_replay():
    boxes = make_trial_env("relic/FourBoxes-v0", 1, {})
    protocol = small_protocol(env="relic/FourBoxes-v0", options={}, trials=20)
    assert not has_map(boxes)
    assert replayed_trials(None, protocol, boxes) == ()
    with pytest.raises(ConfigError, match="replay: must be empty for relic/FourBoxes-v0"):
        replayed_trials([1], protocol, boxes)
    room = make_trial_env("relic/Darkroom-v0", 1, {})
    assert replayed_trials(None, small_protocol(first_trial=1), room) == (1, 2, 3)
    with pytest.raises(ConfigError, match="at most 12 trials"):
        replayed_trials(range(13), small_protocol(trials=20), room)


def test_no_text_ends_the_data_early():
    trial = {"name": "a</script><b>", "map": "", "episodes": []}
    text = replay_section([trial])
    assert text.count("</script>") == 1
    assert '<option value="0">a&lt;/script&gt;&lt;b&gt;</option>' in text
    data = re.findall(r'id="replays">(.*?)</script>', text)[0]
    assert json.loads(data)[0]["name"] == trial["name"]


def test_cells_lie_where_the_picture_says():
    picture = DarkroomMap(4).picture(goal=4 * 3 + 1)  # cell (3, 1)
    assert picture.bounds == (-0.5, 3.5, -0.5, 3.5)
    column, row = picture.plan.pixel(3 - picture.left, 1 - picture.bottom)
    coloured = picture.plan.image[int(row), int(column)]
    assert (coloured != 255).any()
    column, row = picture.plan.pixel(1 - picture.left, 3 - picture.bottom)
    assert (picture.plan.image[int(row), int(column)] == 255).all()


def test_houses_are_replayed_in_metres_and_degrees(tmp_path):
    env = make_trial_env("relic/Houses-v0", 2, HOUSES)
    sizes = {"num_layers": 1, "num_heads": 2, "width": 16, "mlp_width": 16}
    policy = Policy(
        build(PolicyConfig, {"transformer": sizes}),
        env.single_observation_space,  # type: ignore[arg-type]
        env.single_action_space,
        max_episode_steps=env.max_episode_steps,
    ).eval()
    protocol = small_protocol(
        env="relic/Houses-v0", options=HOUSES, trials=2, repeats=1, episodes=2, block=2
    )
    (block,) = protocol.blocks()
    poses, seen, tracker = [], [], Tracker(block, (1,))

    def watched(env, observation, starts_N, action_N):
        poses.append(env.simulator.pose_N4[1].copy())
        seen.append(observation["rgb"][1].astype(float))
        return tracker(env, observation, starts_N, action_N)

    records = [r for r in run_block(policy, env, protocol, block, on_act=watched) if r["trial"]]
    tracker.write(tmp_path)
    track = read_track(tmp_path, 1)
    np.testing.assert_allclose(np.concatenate(track.episodes), poses, atol=1e-3)
    single = make_trial_env("relic/Houses-v0", 1, HOUSES)
    data = replay_data(single, track, records)
    assert data["name"] == "Trial 1, house 1"
    scene = map_of(single).scene
    assert (data["left"], data["bottom"]) == (0, 0)
    assert (data["right"], data["top"]) == pytest.approx(scene.house.extent, abs=0.02)
    for shown, record in zip(data["episodes"], records, strict=True):
        assert len(shown["x"]) == record["length"]
        assert shown["goal"] == env.goal_categories[record["goal"]].replace("_", " ")
        wanted = [[o.x, o.y] for o in scene.objects if o.category == record["goal"]]
        np.testing.assert_allclose(shown["goals"], np.multiply(wanted, 100), atol=0.5)
    first = data["episodes"][0]
    np.testing.assert_allclose(first["x"][0] / 100, poses[0][0], atol=0.006)
    np.testing.assert_allclose(first["heading"][0], np.degrees(poses[0][2]), atol=0.6)
    # Films show what the agent saw, in finer pictures.
    view = next(map_of(single).views(single, track.episodes[0], 96))
    coarse = view.reshape(16, 6, 16, 6, 3).mean((1, 3))
    assert np.abs(coarse - seen[0]).mean() < 20 < np.abs(coarse - seen[0][:, ::-1]).mean()
    image = Image.open(io.BytesIO(base64.b64decode(data["map"].partition(",")[2])))
    wall = np.array(image.resize((64, 64)))[0, 1:-1].mean(0)  # the far outer wall
    np.testing.assert_allclose(wall, np.array(WALL_COLOUR) * 255, atol=12)
