import ast
import contextlib
import copy
import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from envs import check_trial_env
from envs.core import process_worker
from envs.core.process_env import ProcessVectorEnv, to_space
from envs.core.process_pool import WORKER_FILE, Worker, WorkerError

SIMULATOR = Path(__file__).parent / "counting_simulator.py"
TRIALS = {"trial": np.array([0, 1, 2])}


@pytest.fixture
def build():
    """Build environments, and see that none leaves a process behind."""
    built = []

    def make(num_envs=3, *, simulator=SIMULATOR, **kwargs):
        options = {"dataset_name": "counting-v1", "max_episode_steps": 12, "timeout": 20.0}
        env = ProcessVectorEnv(simulator, num_envs, **{**options, **kwargs})
        built.append(env)
        return env

    yield make
    for env in built:
        env.close()
    assert not [p for p in psutil.Process().children(recursive=True) if is_worker(p)]


def is_worker(process):
    """Whether a process is a worker, dead or alive."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE or str(WORKER_FILE) in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def play(env, num_steps=40, seed=0):
    """Return all that the rows get for random actions."""
    seen = []
    for actions in np.random.default_rng(seed).integers(4, size=(num_steps, env.num_envs)):
        obs, reward, terminated, truncated, infos = env.step(actions)
        record = infos.get("episode_record", {})
        ended = infos.get("_episode_record", np.zeros(env.num_envs, bool))
        seen.append(
            [
                (
                    obs["image"][row].tolist(),
                    int(obs["kind"][row]),
                    obs["place"][row].tolist(),
                    float(reward[row]),
                    bool(terminated[row]),
                    bool(truncated[row]),
                    {k: v[row].item() for k, v in record.items()} if ended[row] else None,
                )
                for row in range(env.num_envs)
            ]
        )
    return seen


def test_worker_file_is_python_3_9_and_needs_numpy_only():
    for file in (WORKER_FILE, SIMULATOR):
        tree = ast.parse(file.read_text(), feature_version=(3, 9))
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
        assert names <= set(sys.stdlib_module_names) | {"numpy"}
    # What the grammar does not show: unions evaluated at run time, and match statements.
    assert "from __future__ import annotations" in WORKER_FILE.read_text()


def test_messages_survive_the_way():
    message = {
        "id": 3,
        "value": [1, 2.5, float("inf"), None, "ü", True, {"array": np.arange(6).reshape(2, 3)}],
        "scalar": np.float32(0.5),
    }
    back = process_worker.decode(process_worker.encode(message)[8:])
    array = back["value"].pop()["array"]
    assert array.dtype == np.int64
    assert np.array_equal(array, np.arange(6).reshape(2, 3))
    assert back == {"id": 3, "value": [1, 2.5, float("inf"), None, "ü", True], "scalar": 0.5}
    array[0] = 9  # writable
    with pytest.raises(TypeError, match="must hold"):
        process_worker.encode({"value": object()})


def test_contract(build):
    check_trial_env(build(), make=build)


def test_processes_equal_the_simulator_called_directly(build):
    namespace = {}
    exec(compile(SIMULATOR.read_text(), str(SIMULATOR), "exec"), namespace)
    env = build(record=["value"])
    obs, _ = env.reset(options=TRIALS)
    sims = [namespace["make"]() for _ in range(3)]
    direct = [sim.begin(trial, 0)[0] for trial, sim in enumerate(sims)]
    episode, steps = [0] * 3, [0] * 3
    for actions in np.random.default_rng(0).integers(4, size=(60, 3)):
        for row in range(3):
            for name, value in direct[row].items():
                assert np.array_equal(obs[name][row], value)
        obs, reward, terminated, truncated, infos = env.step(actions)
        for row, sim in enumerate(sims):
            direct[row], want, done, _, info = sim.step(int(actions[row]))
            steps[row] += 1
            assert reward[row] == np.float32(want)
            assert terminated[row] == done
            assert truncated[row] == (not done and steps[row] == 12)
            if done or steps[row] == 12:
                assert infos["episode_record"]["value"][row] == info["value"]
                final = infos["final_obs"][row]
                assert all(np.array_equal(final[k], v) for k, v in direct[row].items())
                episode[row] += 1
                steps[row] = 0
                direct[row] = sim.begin(row, episode[row])[0]
    assert min(episode) >= 2
    assert env.crashes.total_N.tolist() == [0, 0, 0]


def test_calls_options_interpreter_and_environment(build, tmp_path):
    link = tmp_path / "another_python"
    link.symlink_to(sys.executable)
    plain = build(2)
    other = build(
        2,
        python=str(link),
        environment={"RELIC_TEST": "yes", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert len(set(plain.call("pid"))) == 2
    assert plain.call("pid")[1:] == plain.call("pid", rows=[1])
    version, variable, first_path = other.call("version", rows=[0])[0]
    assert version == list(sys.version_info[:2])
    assert variable == "yes"
    assert first_path == str(SIMULATOR.parent)  # as for a script, and not this project's folder
    link_process = psutil.Process(other.call("pid")[0])
    assert link_process.cmdline()[0] == str(link)
    doubled = plain.call("double", np.arange(4, dtype=np.float32))
    assert all(np.array_equal(d, [0, 2, 4, 6]) for d in doubled)


@pytest.mark.parametrize("fail", ["exit", "kill", "raise", "hang", "native hang"])
def test_a_lost_worker_is_restarted_and_the_rest_goes_on(build, tmp_path, fail, caplog):
    good = build()
    good.reset(options=TRIALS)
    expected = play(good)
    marker = str(tmp_path / "failed_once")
    # The simulator of trial 1 fails in step 3 of its second episode.
    env = build(
        options={"fail": fail, "at": [1, 1, 3], "marker": marker},
        timeout=1.5 if "hang" in fail else 20.0,
    )
    env.reset(options=TRIALS)
    pids = env.call("pid")
    seen = play(env)
    for step, (got, want) in enumerate(zip(seen, expected, strict=True)):
        assert got[0] == want[0], step
        assert got[2] == want[2], step
    ends = [outcome[1][-1] for outcome in seen if outcome[1][-1]]
    crashed = [record for record in ends if record["crashed"]]
    assert [(r["trial"], r["episode"], r["length"]) for r in crashed] == [(1, 1, 3)]
    assert ends[2]["episode"] == 2
    assert not ends[2]["crashed"]
    step = next(i for i, o in enumerate(seen) if o[1][-1] and o[1][-1]["crashed"])
    assert seen[step][1][3:6] == (0.0, False, True)  # no reward, not terminated, truncated
    assert seen[step][1][2][1] == 0.0  # and already at the start of the next episode
    assert env.crashes.total_N.tolist() == [0, 1, 0]
    after = env.call("pid")
    assert (after[0], after[2]) == (pids[0], pids[2])
    assert after[1] != pids[1]
    assert not psutil.pid_exists(pids[1])
    reason = {
        "exit": "exit code 7",
        "kill": "exit code -9",
        "raise": "the floor is lava",
        "hang": "no answer within 1.5 s",
        "native hang": "no answer within 1.5 s",
    }[fail]
    assert reason in caplog.text
    assert "about to fail" in caplog.text


def test_kill_from_outside(build):
    env = build()
    env.reset(options=TRIALS)
    env.step(np.zeros(3, int))
    os.kill(env.call("pid")[2], signal.SIGKILL)
    *_, truncated, infos = env.step(np.zeros(3, int))
    assert truncated.tolist() == [False, False, True]
    assert infos["episode_record"]["crashed"].tolist() == [False, False, True]
    assert infos["final_obs"][2]["place"][1] == 1.0  # the last thing that it showed
    assert infos["episode_record"]["length"][2] == 2
    *_, truncated, infos = env.step(np.zeros(3, int))
    assert not truncated.any()


def test_a_stopped_worker_counts_as_hung(build):
    env = build(timeout=1.0)
    env.reset(options=TRIALS)
    os.kill(env.call("pid")[0], signal.SIGSTOP)
    *_, truncated, _ = env.step(np.zeros(3, int))
    assert truncated.tolist() == [True, False, False]
    assert env.crashes.total_N.tolist() == [1, 0, 0]


def test_loss_while_an_episode_begins_is_repaired_at_once(build, tmp_path):
    marker = str(tmp_path / "failed_once")
    env = build(options={"fail": "exit", "at": ["begin", 2, 0], "marker": marker})
    obs, _ = env.reset(options=TRIALS)
    good = build()
    want, _ = good.reset(options=TRIALS)
    assert all(np.array_equal(obs[k], want[k]) for k in obs)
    assert env.crashes.total_N.tolist() == [0, 0, 1]
    assert play(env) == play(good)


def test_a_simulator_that_always_crashes_stops_the_run(build):
    env = build(options={"fail": "raise", "at": ["begin", 1, 0]}, max_crashes=2)
    with pytest.raises(WorkerError, match=r"(?s)max_crashes=2 times.*trial 1.*the floor is lava"):
        env.reset(options=TRIALS)
    env.close()


def test_loss_while_the_expert_is_asked_ends_the_episode(build):
    env = build(2)
    env.reset(options={"trial": np.array([0, 1])})
    assert env.expert_actions().tolist() == [0, 0]
    bad = build(2, options={"fail": "expert"})
    bad.reset()
    assert bad.expert_actions().tolist() == [0, 0]
    *_, truncated, infos = bad.step(np.zeros(2, int))
    assert truncated.all()
    assert infos["episode_record"]["crashed"].all()
    assert bad.crashes.total_N.tolist() == [1, 1]


LOST = """
import os

class Lever:
    observation_space = {"place": {"n": 2}}
    action_space = {"shape": [1], "dtype": "float32", "low": 10, "high": 20}

    def begin(self, trial, episode):
        return {"place": 0}, {}

    def expert_action(self):
        os._exit(3)

def make():
    return Lever()
"""


def test_a_row_whose_worker_is_lost_takes_an_action_that_is_allowed(build, tmp_path):
    simulator = tmp_path / "lever.py"
    simulator.write_text(LOST)
    env = build(2, simulator=simulator)
    env.reset()
    assert env.expert_actions().tolist() == [[10.0], [10.0]]


def test_an_interrupted_call_does_not_confuse_the_next(build, monkeypatch):
    env = build()
    env.reset(options=TRIALS)

    def interrupt(worker):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            env.step(np.zeros(3, int))
    *_, truncated, infos = env.step(np.zeros(3, int))
    assert truncated.all()  # they may or may not have moved: nobody knows
    assert infos["episode_record"]["crashed"].all()
    *_, truncated, _ = env.step(np.zeros(3, int))
    assert not truncated.any()


def test_state_is_restored_by_replay(build):
    env = build()
    env.reset(seed=3)
    play(env, 7)
    state = copy.deepcopy(env.state_dict())
    expected = play(env, seed=1)
    other = build()
    other.load_state_dict(state)
    assert play(other, seed=1) == expected


def test_mistakes_are_named(build, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"simulator must be an existing Python file.*none"):
        build(simulator=tmp_path / "none.py")
    with pytest.raises(WorkerError, match=r"(?s)must start under.*no such scene"):
        build(options={"fail": "make"})
    with pytest.raises(WorkerError, match="python must name an interpreter"):
        build(python="/nowhere/python3.9")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(WorkerError, match="has no attribute 'make'"):
        build(simulator=empty)
    odd = tmp_path / "odd.py"
    odd.write_text(SIMULATOR.read_text().replace('{"n": 4}', '{"m": 4}'))
    with pytest.raises(ValueError, match=r"must have the keys n, or shape.*\['m'\]"):
        build(simulator=odd)
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        build(0)
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1"):
        build(max_episode_steps=0)
    with pytest.raises(ValueError, match="timeout must be above 0, got -1"):
        build(timeout=-1)
    with pytest.raises(TypeError, match="start_timeout must be a number, got '9'"):
        build(start_timeout="9")
    with pytest.raises(ValueError, match="max_crashes must be at least 0"):
        build(max_crashes=-1)
    mute = tmp_path / "mute.py"
    mute.write_text("import time\ntime.sleep(1000)\n")
    with pytest.raises(WorkerError, match="gave no answer within 1 s"):
        build(simulator=mute, start_timeout=1.0)
    assert to_space({"shape": [2], "dtype": "float32", "low": [0, -1], "high": 1}).shape == (2,)


DIALS = """
import numpy as np


class Dials:
    observation_space = {"lamps": {"n": [2, 4]}}
    action_space = {"n": [3, 5]}

    def begin(self, trial, episode):
        self.right = np.array([trial % 3, trial % 5])
        return {"lamps": np.array([0, 0])}, {}

    def step(self, action):
        matches = int((np.asarray(action) == self.right).sum())
        return {"lamps": np.array([matches // 2, matches])}, matches / 2, False, False, {}

    def expert_action(self):
        return self.right


def make():
    return Dials()
"""


def test_several_choices_at_once_go_through_processes(build, tmp_path):
    simulator = tmp_path / "dials.py"
    simulator.write_text(DIALS)
    make = functools.partial(build, simulator=simulator, num_trials=15)
    env = make(2)
    check_trial_env(env, make=make)
    env.reset(options={"new_trial": np.ones(2, bool), "trial": np.array([4, 7])})
    assert env.expert_actions().tolist() == [[1, 4], [1, 2]]
    observation, reward, *_ = env.step(np.array([[1, 4], [1, 0]]))
    assert observation["lamps"].tolist() == [[1, 2], [0, 1]]
    assert reward.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("count", [0, 2.5, [], [2, 0], [[2]], "4", None])
def test_numbers_of_choices_that_are_none_are_refused(count):
    with pytest.raises(ValueError, match="n of a space of the simulator must be a whole number"):
        to_space({"n": count})


def test_close_ends_everything_even_what_hangs(build):
    env = build(options={"fail": "hang", "at": [0, 0, 1]}, timeout=30.0)
    env.reset(options=TRIALS)
    pids = env.call("pid")
    env.pool.workers[0].send("show", method="step", args=[0])  # hangs, and nobody waits for it
    env.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    env.close()


def test_garbage_collection_ends_the_workers():
    env = ProcessVectorEnv(SIMULATOR, 2, dataset_name="x", max_episode_steps=3)
    pids = env.call("pid")
    del env
    assert not any(psutil.pid_exists(pid) for pid in pids)


def still_there(pids):
    """Return the processes; a parent that ends at once may have ended its workers already."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


PARENT = """
    import sys, time
    import numpy as np
    from envs.core.process_env import ProcessVectorEnv
    if __name__ == "__main__":
        env = ProcessVectorEnv(
            {simulator!r}, 2, dataset_name="x", max_episode_steps=3,
            options={{"fail": {fail!r}, "at": [0, 0, 1]}},
        )
        env.reset(options={{"trial": np.array([0, 1])}})
        print(*env.call("pid"), flush=True)
        {then}
"""


@pytest.mark.parametrize(
    ("end", "fail", "then"),
    [
        (signal.SIGKILL, "", "time.sleep(1000)"),
        (signal.SIGKILL, "hang", "env.step(np.zeros(2, int))"),
        pytest.param(
            signal.SIGKILL,
            "native hang",
            "env.step(np.zeros(2, int))",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="the kernel must help"),
        ),
        (signal.SIGINT, "", "time.sleep(1000)"),
        (signal.SIGINT, "hang", "env.step(np.zeros(2, int))"),
        (signal.SIGTERM, "", "time.sleep(1000)"),
        (None, "", "sys.exit(0)"),
        (None, "", "raise RuntimeError"),
    ],
)
def test_workers_end_with_their_parent(end, fail, then):
    script = textwrap.dedent(PARENT).format(simulator=str(SIMULATOR), fail=fail, then=then)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[3],
        start_new_session=True,
        # A suite that runs in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        workers = still_there(pids)
        if end is not None:
            time.sleep(0.3)
            os.killpg(parent.pid, end)  # as a terminal sends Ctrl-C: to the whole group
        parent.wait(20)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
