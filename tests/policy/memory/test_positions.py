import pytest
import torch

from relic.policy.memory.positions import Positions, next_position, positions, rotate, rotation


def by_hand(starts, in_episode=-1, episode=0):
    """Walk one row step by step."""
    facts = []
    for start in starts:
        if in_episode < 0:
            in_episode = 0
        elif start:
            in_episode, episode = 0, episode + 1
        else:
            in_episode += 1
        facts.append((in_episode, episode))
    return facts


@pytest.mark.parametrize("chance", [0.0, 0.2, 0.9, 1.0])
def test_positions_follow_a_walk_through_each_row(chance):
    starts = torch.rand(5, 30) < chance
    got = positions(starts)
    for n in range(5):
        want = by_hand(starts[n].tolist())
        assert list(zip(got.in_episode[n].tolist(), got.episode[n].tolist(), strict=True)) == want


def test_a_pass_in_pieces_and_single_steps_equal_one_pass():
    starts = torch.rand(5, 30) < 0.2
    whole = positions(starts)
    cut = 11
    before = Positions(whole.in_episode[:, cut - 1], whole.episode[:, cut - 1])
    rest = positions(starts[:, cut:], before)
    assert torch.equal(rest.in_episode, whole.in_episode[:, cut:])
    assert torch.equal(rest.episode, whole.episode[:, cut:])
    facts = Positions(torch.full((5,), -1), torch.zeros(5, dtype=torch.long))
    for t in range(30):
        facts = next_position(starts[:, t], facts)
        assert torch.equal(facts.in_episode, whole.in_episode[:, t])
        assert torch.equal(facts.episode, whole.episode[:, t])


def test_the_first_step_of_a_trial_is_step_0_of_episode_0_whatever_its_flag():
    for flag in (False, True):
        facts = positions(torch.tensor([[flag, False, True]]))
        assert facts.in_episode.tolist() == [[0, 1, 0]]
        assert facts.episode.tolist() == [[0, 0, 1]]


def test_empty_and_running_rows_stand_side_by_side():
    before = Positions(torch.tensor([-1, 4]), torch.tensor([0, 2]))
    facts = positions(torch.tensor([[True, False], [False, True]]), before)
    assert facts.in_episode.tolist() == [[0, 1], [5, 0]]
    assert facts.episode.tolist() == [[0, 0], [2, 3]]


def test_rotated_scores_depend_on_the_difference_of_positions_alone():
    q, k = torch.randn(2, 8)
    scores = []
    for first in (0, 3, 40):
        factor = rotation(torch.tensor([first, first + 5]), 8, 100.0)
        scores.append(rotate(q, factor[1]) @ rotate(k, factor[0]))
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert torch.allclose(scores[0], scores[2], atol=1e-5)
    assert torch.equal(rotate(q, rotation(torch.tensor(0), 8, 100.0)), q)


def test_rotation_turns_neighbours_by_the_angle_of_their_frequency():
    factor = rotation(torch.tensor(3), 4, 100.0)
    x = torch.tensor([1.0, 0.0, 1.0, 0.0])
    angles = torch.tensor([3.0, 3.0 * 100.0**-0.5])
    want = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten()
    assert torch.allclose(rotate(x, factor), want, atol=1e-6)
