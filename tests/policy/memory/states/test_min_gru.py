"""minGRU's recurrence where passes compute in half precision."""

import torch

from relic.policy.memory.config import MinGRUConfig
from relic.policy.memory.states.min_gru import MinGRU


def test_the_slowest_channels_fade_in_half_passes_too():
    """A constant input is approached as c (1 - (1 - z)^t), and never passed."""
    torch.manual_seed(0)
    config = MinGRUConfig(width=64, mlp_width=64, num_layers=1)
    mixer = MinGRU(config, max_episode_steps=10).layers[0].mixer
    with torch.no_grad():
        mixer.gate.weight.zero_()
        x_NTE = torch.full((1, 8192, 64), 0.5)
        with torch.autocast("cpu", torch.bfloat16):
            candidate_E = mixer.candidate(x_NTE)[0, 0].double()
            hidden_E = mixer(x_NTE, {"hidden": torch.zeros(1, 64)})[1]["hidden"][0].double()
        kept_E = (1 - torch.sigmoid(mixer.gate.bias.bfloat16().double())) ** 8192
    torch.testing.assert_close(hidden_E, candidate_E * (1 - kept_E), rtol=0.02, atol=1e-4)
