import pytest
import torch

from relic.policy.attention.kinds import AttentionBackend, SinkKind
from relic.policy.memory.config import PositionKind, TransformerConfig
from relic.policy.memory.transformer import Transformer

ROPE, LEARNED, NONE = PositionKind.ROPE, PositionKind.LEARNED, PositionKind.NONE

VARIANTS = {
    "published": {},
    "one_episode": {"inter_episode_attention": False},
    "window": {"attention_window": 7},
    "window_in_episode": {"inter_episode_attention": False, "attention_window": 3},
    "drop_first": {"drop_first": 12},
    "drop_first_in_episode": {"inter_episode_attention": False, "drop_first": 12},
    "positions_swapped": {"in_episode_position": ROPE, "episode_position": LEARNED},
    "running_rope": {
        "in_episode_position": ROPE,
        "episode_position": NONE,
        "reset_position": False,
    },
    "running_learned": {"reset_position": False, "max_positions": 40},
    "no_positions": {"in_episode_position": NONE, "episode_position": NONE},
}


def make(max_episode_steps=60, **fields):
    sizes = {"num_layers": 2, "num_heads": 2, "width": 16, "mlp_width": 24, "rope_base": 100.0}
    return Transformer(
        TransformerConfig(**{**sizes, **fields}), max_episode_steps=max_episode_steps
    )


@pytest.mark.parametrize("kind", list(SinkKind))
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_cached_way_equals_the_full_pass(check_memory, kind, variant):
    check_memory(make(sink=kind, **VARIANTS[variant]))


@pytest.mark.parametrize("kind", [SinkKind.TOKEN, SinkKind.KV])
@pytest.mark.parametrize("variant", ["published", "one_episode", "window", "running_rope"])
@pytest.mark.parametrize("rotated", [True, False])
def test_several_sinks_rotated_or_not(check_memory, kind, variant, rotated):
    check_memory(make(sink=kind, num_sinks=3, rotate_sink_query=rotated, **VARIANTS[variant]))


@pytest.mark.parametrize("kind", list(SinkKind))
@pytest.mark.parametrize("variant", ["published", "one_episode", "window"])
@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_every_cached_way_equals_the_full_pass_of_each_backend(
    check_memory, kind, variant, backend
):
    fields = {"attention_backend": AttentionBackend(backend), **VARIANTS[variant]}
    check_memory(make(sink=kind, **fields))


def test_without_rotation_a_sink_does_not_see_the_episode_index(trials_of):
    one = torch.zeros(1, 1, dtype=torch.bool)
    for rotated in (True, False):
        model = make(rotate_sink_query=rotated, episode_position=ROPE, in_episode_position=NONE)
        trials_of(model)
        x = torch.randn(1, 1, 16)
        outputs = []
        for episodes in (0, 3):
            state = model.initial_state(1, 10)
            # A row that has lost its steps, but not its episode index, sees itself and the sink.
            state.last.episode.fill_(episodes)
            state.last.in_episode.fill_(0)
            outputs.append(model.step(x[:, 0], one[:, 0], state))
        assert torch.allclose(*outputs, atol=1e-6) != rotated


def test_without_attention_across_episodes_each_runs_as_if_alone(trials_of):
    model = make(inter_episode_attention=False, episode_position=NONE)
    trials = trials_of(model)
    for n in range(len(trials.x)):
        begins = [t for t in range(36) if t == 0 or trials.starts[n, t]]
        for first, last in zip(begins, [*begins[1:], 36], strict=True):
            alone = model(trials.x[n : n + 1, first:last], trials.starts[n : n + 1, first:last])
            torch.testing.assert_close(alone[0], trials.y[n, first:last], rtol=0, atol=2e-5)


def test_shuffling_whole_earlier_episodes_keeps_what_a_later_one_sees(trials_of):
    # With neither kind of position on episodes, a context is a set of episodes.
    model = make(num_layers=1, episode_position=NONE)
    trials_of(model)
    x, starts = torch.randn(1, 12, 16), torch.zeros(1, 12, dtype=torch.bool)
    starts[0, [0, 4, 9]] = True
    order = [4, 5, 6, 7, 8, 0, 1, 2, 3, 9, 10, 11]
    y, shuffled = model(x, starts), model(x[:, order], starts[:, order])
    torch.testing.assert_close(shuffled[:, 9:], y[:, 9:], rtol=0, atol=1e-5)


def test_a_window_forgets_and_drop_first_forgets_for_good(trials_of):
    window, dropped = make(num_layers=1, attention_window=5), make(num_layers=1, drop_first=5)
    for model, first_blind in ((window, 5), (dropped, 5)):
        trials = trials_of(model)
        x = trials.x.clone()
        x[:, 0] += 1
        moved = (model(x, trials.starts) - trials.y).abs().amax(dim=(0, 2)) > 1e-6
        assert moved[:first_blind].all()
        assert not moved[first_blind:].any()


def test_depth_dropout_is_the_same_in_acting_refresh_and_learning(trials_of):
    for kind, rotated in ((SinkKind.KV, True), (SinkKind.TOKEN, True), (SinkKind.TOKEN, False)):
        model = make(num_layers=4, depth_dropout=0.5, sink=kind, rotate_sink_query=rotated)
        trials = trials_of(model)
        mask = model.draw_depth_mask(4, torch.Generator().manual_seed(3))
        assert mask is not None
        assert set(mask.unique().tolist()) == {0.0, 2.0}
        learned = model(trials.x, trials.starts, depth_mask_NL=mask)
        assert not torch.allclose(learned, trials.y)
        state = model.initial_state(4, 36)
        with torch.inference_mode():
            model.step(trials.x[:, 0], trials.starts[:, 0], state, write=False)
            state.set_depth_mask(mask)
        refreshed = model.prefill(trials.x[:, :20], trials.starts[:, :20], state)
        torch.testing.assert_close(refreshed, learned[:, :20], rtol=0, atol=1e-4)
        prefix = state.snapshot()
        for t in range(20, 36):
            acted = model.step(trials.x[:, t], trials.starts[:, t], state)
            torch.testing.assert_close(acted, learned[:, t], rtol=0, atol=1e-4)
        y = model(trials.x[[3, 1], 20:], trials.starts[[3, 1], 20:], prefix.select([3, 1]))
        torch.testing.assert_close(y, learned[[3, 1], 20:], rtol=0, atol=1e-4)


def test_depth_dropout_keeps_the_mean_and_a_dropped_layer_does_nothing(trials_of):
    model = make(num_layers=3, depth_dropout=0.25)
    mask = model.draw_depth_mask(20_000)
    assert mask is not None
    assert abs(float(mask.mean()) - 1) < 0.02
    trials = trials_of(model)
    nothing = model(trials.x, trials.starts, depth_mask_NL=torch.zeros(4, 3))
    embedded = trials.x + model.step_embedding(_in_episode(trials.starts))
    torch.testing.assert_close(nothing, model.norm(embedded))
    assert make().draw_depth_mask(4) is None


def _in_episode(starts):
    counts = torch.zeros(starts.shape, dtype=torch.long)
    for t in range(1, starts.shape[1]):
        counts[:, t] = torch.where(starts[:, t], 0, counts[:, t - 1] + 1)
    return counts


def gradients(model, trials):
    model.zero_grad()
    model(trials.x, trials.starts).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("kind", [SinkKind.KV, SinkKind.TOKEN])
def test_checkpointing_changes_no_gradient(trials_of, kind):
    plain = make(sink=kind)
    trials = trials_of(plain)
    saving = make(sink=kind, gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    for a, b in zip(gradients(plain, trials), gradients(saving, trials), strict=True):
        torch.testing.assert_close(a, b)


def test_gradient_stops_at_a_prefix(trials_of):
    model = make()
    trials = trials_of(model)
    early = trials.x[:, :10].clone().requires_grad_()
    state = model.initial_state(4, 36)
    model.prefill(early, trials.starts[:, :10], state)
    late = trials.x[:, 10:].clone().requires_grad_()
    model(late, trials.starts[:, 10:], state).square().sum().backward()
    assert early.grad is None
    assert late.grad is not None
    assert late.grad.any()


@pytest.mark.parametrize(
    ("size", "layers", "width", "hidden"),
    [("tiny", 2, 64, 256), ("small", 4, 256, 1024), ("large", 8, 768, 3072)],
)
def test_sizes_hold_the_published_number_of_parameters(size, layers, width, hidden):
    with torch.device("meta"):
        model = Transformer(TransformerConfig.preset(size), max_episode_steps=500)
    count = sum(p.numel() for p in model.parameters())
    per_layer = 4 * width**2 + 3 * width * hidden + 2 * width
    assert count == layers * (per_layer + width) + width + 501 * width


def test_weights_start_as_published():
    model = make(num_layers=4, width=64, mlp_width=128)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == 1).all(), name
        elif "sink" not in name:
            assert abs(parameter.std().item() - 0.02) < 0.003, name


def test_a_cache_of_half_the_precision_is_close(trials_of):
    model = make()
    trials = trials_of(model)
    state = model.initial_state(4, 36, dtype=torch.bfloat16)
    y = torch.stack(
        [model.step(trials.x[:, t], trials.starts[:, t], state) for t in range(36)], dim=1
    )
    assert y.dtype == torch.float32
    assert (y - trials.y).abs().mean() < 0.05 * trials.y.abs().mean()


def test_an_episode_longer_than_the_table_is_said(trials_of):
    model = make(max_episode_steps=6)
    starts = torch.zeros(1, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"position in its episode must be below 7, got 7"):
        model(torch.randn(1, 8, 16), starts)
    state = model.initial_state(1, 8)
    model.prefill(torch.randn(1, 7, 16), starts[:, :7], state)
    with pytest.raises(ValueError, match=r"must be below 7, got 7"):
        model.step(torch.randn(1, 16), starts[:, 0], state)


def test_a_state_of_another_model_or_other_rows_is_refused():
    model = make()
    x, starts = torch.randn(2, 3, 16), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"state must have the 2 rows of x, got 3"):
        model(x, starts, model.initial_state(3, 5))
    with pytest.raises(TypeError, match="must be of class KVCache"):
        model.step(x[:, 0], starts[:, 0], object())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"lengths must be one number in \[0, 3\]"):
        model.prefill(x, starts, model.initial_state(2, 5), lengths=[4, 1])


def test_acting_in_inference_mode_leaves_prefixes_that_learning_can_use(trials_of):
    model = make()
    trials = trials_of(model)
    with torch.inference_mode():
        state = model.initial_state(4, 36)
        for t in range(10):
            model.step(trials.x[:, t], trials.starts[:, t], state)
        prefix = state.snapshot()
        chosen = prefix.select([3, 0])
    model(trials.x[[3, 0], 10:], trials.starts[[3, 0], 10:], chosen).sum().backward()
    state.reset([1])
    model.prefill(trials.x[[1], :4], trials.starts[[1], :4], state, rows=[1])
    assert state.lengths.tolist() == [10, 4, 10, 10]


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({}, 6),
        ({"max_positions": 6}, 6),
        ({"max_positions": 40}, 6),
        ({"reset_position": False, "max_positions": 12}, 12),
        ({"reset_position": False, "max_positions": 40}, 12),
    ],
)
def test_what_follows_the_last_step_is_looked_at_from_a_row_that_learns(fields, length):
    """Rows of the table from `length` on are met by no step, so nothing may depend on them."""
    model = make(max_episode_steps=6, **fields)
    starts = torch.zeros(1, 12, dtype=torch.bool)
    starts[:, ::6] = True
    x = torch.randn(1, 13, 16)
    state = model.initial_state(1, 12)
    model.prefill(x[:, :length], starts[:, :length], state)
    no = torch.zeros(1, dtype=torch.bool)
    before = model.step(x[:, length], no, state, write=False)
    with torch.no_grad():
        model.step_embedding.weight[length:] = 9.0
    assert torch.equal(model.step(x[:, length], no, state, write=False), before)
    with torch.no_grad():
        model.step_embedding.weight[length - 1] += 1.0
    assert (model.step(x[:, length], no, state, write=False) - before).abs().max() > 1e-3


def test_an_episode_that_nobody_begins_can_be_looked_at():
    model = make(episode_position=LEARNED, max_episodes=2)
    starts = torch.tensor([[True, False, True, False]])
    state = model.initial_state(1, 4)
    model.prefill(torch.randn(1, 4, 16), starts, state)
    begins = torch.ones(1, dtype=torch.bool)
    assert model.step(torch.randn(1, 16), begins, state, write=False).isfinite().all()
    longer = model.initial_state(1, 5)
    model.prefill(torch.randn(1, 4, 16), starts, longer)
    with pytest.raises(ValueError, match=r"episode's index must be below 2, got 2"):
        model.step(torch.randn(1, 16), begins, longer)
