import json

import numpy as np
import pytest
import torch

from relic.run.checkpoint import StateError, load_state, save_state

STATE = {
    "none": None,
    "flag": True,
    "count": 2**100,  # random generators have 128-bit states
    "names": ["a", "b"],
    "numbered": {0: {"step": torch.tensor(1.0)}, 7: None},
    "nested": {"scalar": np.float32(0.1), "empty": np.zeros((0, 3), np.int64)},
    "array": np.arange(6, dtype=np.uint64).reshape(2, 3),
    "zero_dim": np.array(3.5),
    "tensor": torch.randn(2, 3).to(torch.bfloat16),
    "bools": torch.tensor([True, False]),
}


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, strict=True)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    else:
        assert a == b


def test_state_survives_the_disk(tmp_path):
    save_state(tmp_path, "x", STATE)
    loaded = load_state(tmp_path, "x")
    expected = {**STATE, "nested": {**STATE["nested"], "scalar": float(np.float32(0.1))}}
    assert_equal(loaded, expected)


def test_tensors_that_share_memory_are_saved_apart(tmp_path):
    base = torch.arange(4.0)
    save_state(tmp_path, "x", {"a": base[:2], "b": base})
    assert torch.equal(load_state(tmp_path, "x")["b"], base)


def test_only_plain_data_is_taken(tmp_path):
    with pytest.raises(TypeError, match=r"x\.a: a state must hold plain data"):
        save_state(tmp_path, "x", {"a": object()})


@pytest.mark.parametrize("damage", ["missing", "cut", "not_json"])
def test_damage_is_named(tmp_path, damage):
    save_state(tmp_path, "x", STATE)
    path = tmp_path / ("x.json" if damage != "cut" else "x.numpy.safetensors")
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        path.write_text("{")
    with pytest.raises(StateError, match=path.name):
        load_state(tmp_path, "x")


def test_a_tree_that_names_an_absent_array_is_refused(tmp_path):
    save_state(tmp_path, "x", STATE)
    tree = json.loads((tmp_path / "x.json").read_text())
    tree["array"]["__array__"] = "elsewhere"
    (tmp_path / "x.json").write_text(json.dumps(tree))
    with pytest.raises(StateError, match="elsewhere"):
        load_state(tmp_path, "x")
