import pytest

from envs.make import known_ids, make_trial_env


def test_registered_environments_are_built_with_options():
    env = make_trial_env("relic/Darkroom-v0", 3, {"split": "val", "seed": 4, "first_row": 2})
    assert (env.num_envs, env.dataset_name) == (3, "relic-darkroom-v1/10x10/val")
    assert "relic/Darkroom-v0" in known_ids()


def test_own_factories_are_built(monkeypatch, tmp_path):
    (tmp_path / "my_rooms.py").write_text(
        "from envs.darkroom import DarkroomVectorEnv\n"
        "def make(num_envs, *, side=6):\n    return DarkroomVectorEnv(num_envs, size=side)\n"
        "def wrong(num_envs):\n    return object()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert make_trial_env("my_rooms:make", 2, {"side": 8}).single_action_space.n == 5
    with pytest.raises(ValueError, match=r"env\.options\.sid: .*Did you mean 'side'"):
        make_trial_env("my_rooms:make", 2, {"sid": 8})
    with pytest.raises(TypeError, match=r"must build an envs\.core\.vector\.Trial.*, got object"):
        make_trial_env("my_rooms:wrong", 2, {})
    with pytest.raises(ValueError, match="must name a function as module:function"):
        make_trial_env("my_rooms:absent", 2, {})
    with pytest.raises(ValueError, match=r"env\.options\.split: .* takes no options, got 'val'"):
        make_trial_env("my_rooms:wrong", 2, {"split": "val"})


@pytest.mark.parametrize("function", ["general", "plain", "named"])
def test_an_option_that_an_own_environment_does_not_take_is_named_by_its_key(
    monkeypatch, tmp_path, function
):
    """Whoever refuses it: a class that it is handed to, Python, or `make_trial_env` itself."""
    (tmp_path / "own_rooms.py").write_text(
        "import gymnasium\n"
        "from envs.core.trials import EpisodeTrials\n"
        "def general(num_envs, **options):\n"
        "    return EpisodeTrials(lambda: gymnasium.make('CartPole-v1'), num_envs, num_trials=4,\n"
        "                         max_episode_steps=9, dataset_name='own', **options)\n"
        "def plain(num_envs, **options):\n    return named(num_envs, **options)\n"
        "def named(num_envs, *, seed=None):\n    return general(num_envs, seed=seed)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^env\.options\.split: .*Let it take split, as docs"):
        make_trial_env(f"own_rooms:{function}", 1, {"split": "val"})
    assert make_trial_env(f"own_rooms:{function}", 1, {"seed": 1}).num_envs == 1


def test_an_option_that_is_nearly_one_of_an_own_function_is_told_so(monkeypatch, tmp_path):
    (tmp_path / "own_halls.py").write_text(
        "import gymnasium\n"
        "from envs.core.trials import EpisodeTrials\n"
        "def make(num_envs, *, split='train', **options):\n"
        "    return EpisodeTrials(lambda: gymnasium.make('CartPole-v1'), num_envs, num_trials=4,\n"
        "                         max_episode_steps=9, dataset_name='own', **options)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"^env\.options\.splt: .* Did you mean 'split', which own_h"
    ):
        make_trial_env("own_halls:make", 1, {"splt": "val"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("relic/Darkrom-v0", {}, r"env\.id: .*Did you mean 'relic/Darkroom-v0'"),
        ("my_rooms", {}, r"env\.id: .*got 'my_rooms'\. One of your own is MODULE:FUNCTION\."),
        ("relic/Darkroom-v0", {"splt": "val"}, r"env\.options\.splt: .*Did you mean 'split'"),
        ("relic/Darkroom-v0", {"num_trials": 3}, r"env\.options\.num_trials"),
        ("no_such_module:make", {}, r"No module named 'no_such_module'"),
        ("os:path", {}, r"env\.id: 'os:path' must name a function .*, but os:path is a module"),
        ("math:pi", {}, r"env\.id: .* but math:pi is a float"),
        (".my_rooms:make", {}, r"env\.id: '\.my_rooms:make' must name a function"),
        (":", {}, r"env\.id: ':' must name a function"),
        ("my_rooms:make:more", {}, r"env\.id: .* must name a function"),
    ],
)
def test_each_mistake_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_trial_env(name, 1, options)
