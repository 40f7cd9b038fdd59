"""Generalised advantage estimation over rows of consecutive episodes.

Always in time order, whatever order the context has. Nothing here loops over steps in Python: on
the CPU one compiled pass goes backwards through each row, elsewhere the recurrence
`A[t] = delta[t] + decay[t] * A[t+1]` is solved by doubling in log2(T) passes.

Shapes: N rows, T steps.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from relic.ppo.config import Credit, TimeLimit


def find_ends(
    terminated_NT: Tensor,
    truncated_NT: Tensor,
    *,
    crashed_NT: Tensor | None = None,
    credit: Credit,
    time_limit: TimeLimit,
    trial_over: bool,
) -> tuple[Tensor, Tensor]:
    """Say where the stream of rewards is cut, and which cuts a final value stands behind.

    Args:
        terminated_NT: bool; the task ended with this step.
        truncated_NT: bool; a limit or a crash ended the episode with this step.
        crashed_NT: bool; the simulator failed. Never the policy's doing, so always bootstrapped.
        credit: See `Credit`.
        time_limit: See `TimeLimit`.
        trial_over: The last column is the last step of the trial, so an episode that ends there
            ends the stream under either credit.

    Returns:
        (cut_NT, bootstrapped_NT), bool: after which steps nothing of the following stream
        counts, and after which of them the value of the final observation does.
    """
    ended_NT = terminated_NT | truncated_NT
    bootstrapped_NT = torch.zeros_like(ended_NT) if crashed_NT is None else crashed_NT & ended_NT
    # An end by the task is one even if it falls on the limit: nothing follows it.
    if time_limit is TimeLimit.BOOTSTRAP:
        bootstrapped_NT = bootstrapped_NT | (truncated_NT & ~terminated_NT)
    if credit is Credit.TRIAL:
        # Within a trial the stream runs on into the next episode, so neither cuts nor final values
        # count.
        keep_NT = torch.zeros_like(ended_NT)
        keep_NT[:, -1:] = trial_over
        ended_NT, bootstrapped_NT = ended_NT & keep_NT, bootstrapped_NT & keep_NT
    return ended_NT, bootstrapped_NT


def gae(
    reward_NT: Tensor,
    value_NT: Tensor,
    cut_NT: Tensor,
    *,
    final_value_NT: Tensor,
    bootstrap_N: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Estimate advantages and returns.

    Args:
        reward_NT: Reward of each step.
        value_NT: The critic's value before each step.
        cut_NT: bool, from `find_ends`.
        final_value_NT: What follows a cut step: the value of the final observation where it is
            bootstrapped, else zero. Not read elsewhere.
        bootstrap_N: Value of the observation that follows the last column.
        gamma: Discount.
        gae_lambda: Trace decay.

    Returns:
        (advantage_NT, return_NT), float32 on the device of the rewards.
    """
    if reward_NT.device.type == "cpu":
        advantage_NT = torch.empty(reward_NT.shape, dtype=torch.float32)
        _gae_kernel(
            _array(reward_NT, np.float32),
            _array(value_NT, np.float32),
            _array(cut_NT, np.bool_),
            _array(final_value_NT, np.float32),
            _array(bootstrap_N, np.float32),
            np.float32(gamma),
            np.float32(gae_lambda),
            advantage_NT.numpy(),
        )
    else:
        advantage_NT = gae_by_doubling(
            reward_NT,
            value_NT,
            cut_NT,
            final_value_NT=final_value_NT,
            bootstrap_N=bootstrap_N,
            gamma=gamma,
            gae_lambda=gae_lambda,
        )
    # The return to learn is the lambda-return, under the values that the advantages came from.
    return advantage_NT, advantage_NT + value_NT


def gae_by_doubling(
    reward_NT: Tensor,
    value_NT: Tensor,
    cut_NT: Tensor,
    *,
    final_value_NT: Tensor,
    bootstrap_N: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Return the advantages of `gae`, computed with whole-array operations on any device."""
    following_NT = torch.cat([value_NT[:, 1:], bootstrap_N[:, None]], dim=1)
    following_NT = torch.where(cut_NT, final_value_NT, following_NT)
    advantage_NT = (reward_NT + gamma * following_NT - value_NT).float()
    # No trace crosses a cut.
    decay_NT = torch.where(cut_NT, 0.0, gamma * gae_lambda).float()
    num_steps = reward_NT.shape[1]
    shift = 1
    # After each pass advantage[t] holds the sum over 2 * shift steps and decay[t] the product of
    # the decays across them.
    while shift < num_steps:
        head = slice(0, num_steps - shift)
        summed = advantage_NT[:, head] + decay_NT[:, head] * advantage_NT[:, shift:]
        decay_NT[:, head] = decay_NT[:, head] * decay_NT[:, shift:]
        decay_NT[:, num_steps - shift :] = 0.0
        advantage_NT = torch.cat([summed, advantage_NT[:, num_steps - shift :]], dim=1)
        shift *= 2
    return advantage_NT


def _array(x: Tensor, dtype: type[np.generic]) -> np.ndarray:
    # The kernel is compiled for one layout; views of a wider rollout are strided and come as they
    # are, because its signature is generic in strides.
    return np.asarray(x.detach().numpy(), dtype=dtype)


@numba.njit(cache=True, nogil=True)
def _gae_kernel(reward_NT, value_NT, cut_NT, final_value_NT, bootstrap_N, gamma, lam, out_NT):
    for n in range(reward_NT.shape[0]):
        following = bootstrap_N[n]
        carried = np.float32(0.0)
        for t in range(reward_NT.shape[1] - 1, -1, -1):
            # What follows in the row belongs to another stream: neither its value nor its trace
            # counts.
            if cut_NT[n, t]:
                following = final_value_NT[n, t]
                carried = np.float32(0.0)
            delta = reward_NT[n, t] + gamma * following - value_NT[n, t]
            carried = delta + gamma * lam * carried
            out_NT[n, t] = carried
            following = value_NT[n, t]
