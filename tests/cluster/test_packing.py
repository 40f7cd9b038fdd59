import pickle

import numpy as np
import torch

from relic.cluster.env_runner import pack, unpack


def test_what_is_unpacked_equals_what_was_packed_and_owns_its_memory():
    state = {
        "tensor": torch.arange(6.0).reshape(2, 3),
        "flags": torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "array": np.arange(3),
        "nested": [{"n": 1, "none": None, "text": "a"}],
    }
    sent = pickle.loads(pickle.dumps(pack(state)))
    sent["array"].flags.writeable = False
    back = unpack(sent)
    assert back["nested"] == state["nested"]
    assert np.array_equal(back["array"], state["array"])
    back["array"][0] = 9
    for name in ("tensor", "flags", "half"):
        assert torch.equal(back[name], state[name])
        assert back[name].dtype == state[name].dtype
