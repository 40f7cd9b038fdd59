"""Reference attention with the whole mask, for comparison with the other backends."""

from __future__ import annotations

from torch import Tensor

from relic.policy.attention.inputs import AttentionInputs


def reference_attention(inputs: AttentionInputs) -> Tensor:
    """Attend on any device, holding all scores."""
    keys, values = inputs.joined()
    seen_N1TJ = inputs.segments.mask(inputs.num_sinks, inputs.window)[:, None]
    # A slot beyond a row's length may hold anything, and 0 * NaN is NaN.
    unused_N1J1 = ~seen_N1TJ.any(dim=2).unsqueeze(-1)
    keys, values = keys.masked_fill(unused_N1J1, 0), values.masked_fill(unused_N1J1, 0)
    score = inputs.q @ keys.transpose(-1, -2) * inputs.scale
    return score.masked_fill(~seen_N1TJ, float("-inf")).softmax(-1) @ values
