import math
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from relic.policy.attention.kinds import AttentionBackend, SinkKind
from relic.policy.memory.config import TransformerConfig
from relic.policy.memory.cpu.step import fits_step
from relic.policy.memory.cuda_graph import CUDAGraphSteps
from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.sequence_model import ContextOverflowError, StaleStateError
from relic.policy.memory.transformer import Transformer

LIMITS = {
    "none": {},
    "window": {"attention_window": 7},
    "drop_first": {"drop_first": 12},
    "one_episode": {"inter_episode_attention": False},
}


def make(max_episode_steps=40, **fields):
    sizes = {"num_layers": 2, "num_heads": 2, "width": 16, "mlp_width": 24, "rope_base": 100.0}
    return Transformer(
        TransformerConfig(**{**sizes, **fields}), max_episode_steps=max_episode_steps
    )


def poison(state: KVCache) -> None:
    """Write NaN wherever a row has no step."""
    filled = np.minimum(state.host_steps(), state.slots)
    for row, count in enumerate(filled.tolist()):
        state.kv[:, :, row, :, state.num_sinks + count :] = math.nan


@pytest.mark.parametrize("kind", list(SinkKind))
@pytest.mark.parametrize("limit", LIMITS)
def test_nothing_beyond_a_row_is_ever_read(trials_of, kind, limit):
    model = make(sink=kind, **LIMITS[limit])
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    at = [0, 5, 17, 17]
    poison(state)
    model.prefill(trials.x[:, :17], trials.starts[:, :17], state, lengths=at)
    for _ in range(12):
        poison(state)
        x, starts = trials.steps(at)
        y = model.step(x, starts, state)
        assert (y - trials.outputs(at)).abs().max() < 1e-4
        at = [t + 1 for t in at]
    poison(state)
    tail = trials.x[:, :4], trials.starts[:, :4]
    assert model(*tail, state).isfinite().all()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_nan_does_not_outlive_its_trial(trials_of, fixed):
    model = make()
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    state.fixed_slots = state.slots if fixed else 0
    for t in range(5):
        x = trials.x[:, t].clone()
        x[1] = math.nan
        y = model.step(x, trials.starts[:, t], state)
        assert y[[0, 2, 3]].isfinite().all()
    state.reset([1])
    for t in range(6):
        y = model.step(trials.x[:, t], trials.starts[:, t], state)
        assert (y[1] - trials.y[1, t]).abs().max() < 1e-4


@pytest.mark.parametrize("limit", LIMITS)
def test_fixed_shapes_give_the_same(trials_of, limit):
    model = make(**LIMITS[limit])
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    state.fixed_slots = state.slots
    for t in range(36):
        y = model.step(trials.x[:, t], trials.starts[:, t], state)
        assert (y - trials.y[:, t]).abs().max() < 1e-4


@pytest.mark.parametrize("limit", LIMITS)
def test_steps_of_cuda_graphs_give_the_same(trials_of, limit):
    """All but the capturing itself, which takes a GPU (test_gpu.py)."""
    model = make(**LIMITS[limit])
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    graphs = state.cuda_graph = CUDAGraphSteps(model.decode, state, fewest_slots=8)
    at = [0, 0, 0, 0]
    for t in range(36):
        if t == 20:
            state.reset([1])
            at[1] = 0
        x, starts = trials.steps(at)
        for write in (False, True):
            y = model.step(x, starts, state, write=write)
            assert (y - trials.outputs(at)).abs().max() < 1e-4
        at = [k + 1 for k in at]
    assert graphs.graph_slots == sorted({min(n, state.slots) for n in (8, 16, 32, 64)})
    assert state.snapshot().cuda_graph is None


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("fixed", [False, True])
def test_a_step_never_waits_for_the_device(limit, fixed):
    """Tensors without data refuse every question that a host could ask of a device."""
    model = make(**LIMITS[limit]).to("meta")
    state = model.initial_state(3, 20, device="meta")
    assert state.kv.is_meta
    state.fixed_slots = state.slots if fixed else 0
    x = torch.empty(3, 16, device="meta")
    starts = torch.empty(3, dtype=torch.bool, device="meta")
    for write in (True, True, False):
        assert model.step(x, starts, state, write=write).shape == (3, 16)


class Allocations(TorchDispatchMode):
    """Knows the largest tensor that was made while it was on; views are none."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        known = {x.untyped_storage().data_ptr() for x in given}
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known:
                self.largest = max(self.largest, x.numel())
        return out


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("lengths", [[500, 500, 500], [3, 500, 260]])
@pytest.mark.parametrize("width", [16, 64])
def test_a_step_makes_nothing_that_grows_with_the_context(limit, lengths, width):
    sdpa = AttentionBackend.SDPA
    model = make(max_episode_steps=600, width=width, attention_backend=sdpa, **LIMITS[limit])
    state = model.initial_state(3, 600)
    x, starts = torch.randn(3, 500, width), torch.zeros(3, 500, dtype=torch.bool)
    model.prefill(x, starts, state, lengths=lengths)
    for write in (True, False):
        with Allocations() as made:
            model.step(x[:, 0], starts[:, 0], state, write=write)
        assert 3 * width <= made.largest <= 3 * 3 * width


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("lengths", [[500, 500, 500], [3, 500, 260]])
@pytest.mark.parametrize("width", [16, 64])
def test_a_compiled_step_makes_nothing_that_grows_with_the_context(limit, lengths, width):
    model = make(max_episode_steps=600, width=width, **LIMITS[limit])
    state = model.initial_state(3, 600)
    x, starts = torch.randn(3, 500, width), torch.zeros(3, 500, dtype=torch.bool)
    model.prefill(x, starts, state, lengths=lengths)
    assert fits_step(x[:, 0], state)
    for write in (True, False):
        # Once before, as kernels are compiled and loaded when they are first used.
        model.step(x[:, 0], starts[:, 0], state, write=False)
        tracemalloc.start()
        with Allocations() as made:
            model.step(x[:, 0], starts[:, 0], state, write=write)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # Arrays are counted by the one, tensors by the other: less than the keys of one row.
        assert 3 * width * 4 <= peak < 500 * width * 4
        assert made.largest <= 3 * 3 * width


def test_overflow_is_said_before_anything_is_written():
    model = make()
    state = model.initial_state(3, 4)
    x, starts = torch.randn(3, 4, 16), torch.zeros(3, 4, dtype=torch.bool)
    model.prefill(x, starts, state, lengths=[1, 4, 2])
    before = state.state_dict()
    with pytest.raises(ContextOverflowError, match=r"capacity=4 steps, got step 5 in row 1"):
        model.step(x[:, 0], starts[:, 0], state)
    with pytest.raises(ContextOverflowError, match=r"got step 6 in row 2"):
        model.prefill(x, starts, state, rows=[0, 2], lengths=[2, 4])
    after = state.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k != "capacity")
    # One look ahead fits, for the value of what follows the last step.
    model.step(x[:, 0], starts[:, 0], state, write=False)
    with pytest.raises(ContextOverflowError):
        model.step(x[:, 0], starts[:, 0], state)
    state.reset([1])
    model.step(x[:, 0], starts[:, 0], state)
    assert state.lengths.tolist() == [2, 1, 3]


@pytest.mark.parametrize("limit", LIMITS)
def test_bytes_are_as_the_formula_says(limit):
    for kind, sinks in ((SinkKind.NONE, 1), (SinkKind.KV0, 3)):
        model = make(max_episode_steps=9, sink=kind, num_sinks=sinks, **LIMITS[limit])
        for dtype in (torch.float32, torch.bfloat16):
            state = model.initial_state(5, 30, dtype=dtype)
            assert state.nbytes == 5 * model.bytes_per_row(30, dtype)


def test_limits_on_what_is_seen_limit_memory():
    steps = 10_000
    whole = make().bytes_per_row(steps)
    per_step = 2 * 2 * 16 * 4
    assert whole == per_step * (steps + 1 + 1)
    assert make(attention_window=7).bytes_per_row(steps) == per_step * (7 + 1)
    assert make(inter_episode_attention=False).bytes_per_row(steps) == per_step * (41 + 1)
    assert make(drop_first=4_000).bytes_per_row(steps) == per_step * (steps + 1 - 4_000 + 1)


def test_a_snapshot_shares_its_slots_and_is_void_after_a_reset(trials_of):
    model = make()
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    model.prefill(trials.x[:, :8], trials.starts[:, :8], state)
    prefix = state.snapshot()
    assert prefix.kv.data_ptr() == state.kv.data_ptr()
    assert prefix.select([1, 2]).kv.data_ptr() == state.kv[:, :, 1:].data_ptr()
    copied = prefix.select([3, 1])
    others = prefix.select([0, 1])
    tail = trials.x[[0, 1], 8:], trials.starts[[0, 1], 8:]
    state.reset([3])
    model(*tail, others)
    model(*tail, copied)
    with pytest.raises(StaleStateError, match="before its rows are reset"):
        model(trials.x[:, 8:], trials.starts[:, 8:], prefix)
    with pytest.raises(StaleStateError):
        prefix.select([0, 3])
    model.prefill(trials.x[[3], :8], trials.starts[[3], :8], state, rows=[3])
    assert torch.isfinite(model(trials.x[:, 8:], trials.starts[:, 8:], state.snapshot())).all()


def test_a_rewound_cache_is_what_it_was(trials_of):
    model = make()
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    model.prefill(trials.x[:, :8], trials.starts[:, :8], state)
    tail = trials.x[[2, 0], 8:], trials.starts[[2, 0], 8:]
    expected = model(*tail, state.snapshot().select([2, 0]))
    model.prefill(trials.x[:, 8:], trials.starts[:, 8:], state)
    chosen = state.snapshot().select([2, 0])
    assert torch.equal(model(*tail, chosen.rewound(trials.starts[[2, 0], :8])), expected)
    adjacent = state.snapshot().select([1, 2]).rewound(trials.starts[[1, 2], :8])
    state.reset([2])
    with pytest.raises(StaleStateError):
        model(trials.x[[1, 2], 8:], trials.starts[[1, 2], 8:], adjacent)


def test_what_cannot_be_rewound_says_so(trials_of):
    model = make(attention_window=7)
    trials = trials_of(model)
    state = model.initial_state(4, 36)
    model.prefill(trials.x, trials.starts, state)
    with pytest.raises(ValueError, match="keeps every step"):
        state.snapshot().rewound(trials.starts[:, :8])
    young = make().initial_state(4, 36)
    with pytest.raises(ValueError, match="at least 8 steps, got 0"):
        young.rewound(trials.starts[:, :8])


def test_sinks_in_a_cache_follow_the_weights(trials_of):
    for kind in (SinkKind.KV, SinkKind.TOKEN):
        model = make(sink=kind)
        trials = trials_of(model)
        state = model.initial_state(4, 36)
        x, starts = trials.x[:, 0], trials.starts[:, 0]
        model.step(x, starts, state, write=False)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.3)
        want = model(trials.x[:, :1], trials.starts[:, :1])[:, 0]
        torch.testing.assert_close(model.step(x, starts, state), want, rtol=0, atol=1e-4)
        # A change that no version counts is met at the latest where a trial begins.
        model.blocks[0].qkv.weight.data.mul_(1.3)
        state.reset()
        want = model(trials.x[:, :1], trials.starts[:, :1])[:, 0]
        torch.testing.assert_close(model.step(x, starts, state), want, rtol=0, atol=1e-4)


def test_rows_are_named_by_mask_or_index():
    model = make()
    state = model.initial_state(3, 5)
    x, starts = torch.randn(3, 16), torch.zeros(3, dtype=torch.bool)
    for rows, left in (
        (torch.tensor([True, False, True]), [0, 1, 0]),
        (np.array([1]), [1, 0, 1]),
        ([], [1, 1, 1]),
        (None, [0, 0, 0]),
    ):
        state.reset()
        model.step(x, starts, state)
        state.reset(rows)
        assert state.lengths.tolist() == left
    with pytest.raises(ValueError, match=r"rows: must be in \[0, 3\), got \[3\]"):
        state.reset([3])
    with pytest.raises(ValueError, match=r"one flag per row \(3\), got shape \(2,\)"):
        state.reset([True, False])


def test_sizes_that_make_no_sense_are_refused():
    model = make()
    with pytest.raises(ValueError, match="num_rows and capacity must be at least 1, got 0 and 5"):
        model.initial_state(0, 5)
    saved = model.initial_state(3, 5).state_dict()
    with pytest.raises(ValueError, match=r"load_state_dict: shape and capacity must be .* got"):
        model.initial_state(3, 6).load_state_dict(saved)
