"""POPGym's tasks as trials."""

import numpy as np
import pytest

from envs import check_trial_env
from envs.popgym_tasks import make

pytest.importorskip("popgym")
TASKS = [
    "RepeatPreviousEasy", "RepeatFirstEasy", "AutoencodeEasy", "ConcentrationEasy",
    "HigherLowerEasy", "CountRecallEasy",
]  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_each_task_keeps_the_contract_of_trials(task):
    check_trial_env(make(2, task=task), make=lambda **options: make(task=task, **options))


def test_games_of_a_trial_are_dealt_anew_and_rules_pay():
    """Who names the suit of four cards ago scores one, whatever the game."""
    env = make(2, task="RepeatPreviousEasy")
    observation, _ = env.reset(seed=0)
    cards, returns, dealt = [observation["observation"].copy()], [], []
    while len(returns) < 6:
        back = cards[-4] if len(cards) >= 4 else cards[0]
        observation, _, _, _, infos = env.step(back)
        cards.append(observation["observation"].copy())
        if "episode_record" in infos:
            returns += infos["episode_record"]["return"][infos["_episode_record"]].tolist()
            dealt.append(np.stack(cards[:-1]).tobytes())
            cards = cards[-1:]
    assert np.allclose(returns, 1.0)
    assert len(set(dealt)) == len(dealt)


def test_what_is_not_there_is_said():
    with pytest.raises(
        ValueError, match=r"env\.options\.task: the task must be .* Did you mean 'RepeatFirstEasy'"
    ):
        make(1, task="RepeatFirstEasyy")
