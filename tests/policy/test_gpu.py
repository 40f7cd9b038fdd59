"""What can only be seen on a CUDA device: packed and compiled backends, and the captured step."""

import itertools

import numpy as np
import pytest
import torch

from relic.policy.attention.attend import attend
from relic.policy.attention.inputs import Past, Sinks
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.attention.segments import Segments
from relic.policy.encoders.config import EncoderConfig, VisualKind, VitConfig
from relic.policy.encoders.images import ImageEncoder, ImageSpec
from relic.policy.memory.config import TransformerConfig
from relic.policy.memory.cuda_graph import CUDAGraphSteps
from relic.policy.memory.transformer import Transformer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
CASES = list(itertools.product((0, 2), (None, "alike", "ragged"), (False, True), (None, 9)))


def inputs(num_sinks, past, segmented, dtype):
    tensors = [torch.randn(3, 4, 70, 32, device="cuda", dtype=dtype) for _ in range(3)]
    sinks = [torch.randn(4, num_sinks, 32, device="cuda", dtype=dtype) for _ in range(2)]
    starts = torch.rand(3, 70, device="cuda") < 0.1 if segmented else None
    steps = {None: None, "alike": [40, 40, 40], "ragged": [0, 11, 40]}[past]
    cached = None
    if steps is not None:
        cached = Past(*(torch.randn(3, 4, 40, 32, device="cuda", dtype=dtype) for _ in range(2)))
    segments = Segments(
        3,
        70,
        starts_NT=starts,
        past_steps=None if steps is None else np.array(steps),
        past_slots=0 if steps is None else 40,
        device="cuda",
    )
    return tensors, sinks, cached, segments


def run(tensors, sinks, cached, segments, window, backend):
    leaves = [x.detach().requires_grad_() for x in (*tensors, *sinks)]
    out = attend(
        *leaves[:3],
        sinks=Sinks(*leaves[3:]) if sinks[0].shape[1] else None,
        past=cached,
        segments=segments,
        window=window,
        backend=backend,
    )
    weight = torch.linspace(-1, 1, out.numel(), device="cuda", dtype=out.dtype).view_as(out)
    used = leaves if sinks[0].shape[1] else leaves[:3]
    return [out, *torch.autograd.grad((out * weight).sum(), used)]


@pytest.mark.parametrize("backend", ["sdpa", "varlen"])
@pytest.mark.parametrize(("num_sinks", "past", "segmented", "window"), CASES)
def test_backends_agree_in_values_and_gradients(backend, num_sinks, past, segmented, window):
    if backend == "varlen" and num_sinks and window:
        pytest.skip("varlen cannot keep sinks inside a window")
    dtype = torch.bfloat16 if backend == "varlen" else torch.float32
    made = inputs(num_sinks, past, segmented, dtype)
    want = run(*made, window, AttentionBackend.REFERENCE)
    got = run(*made, window, AttentionBackend(backend))
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-4
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_captured_step_equals_a_step(dtype):
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.preset("small"), max_episode_steps=50).cuda()
    x = torch.randn(5, 30, 256, device="cuda")
    starts = torch.rand(5, 30, device="cuda") < 0.1
    plain, captured = (model.initial_state(5, 30, dtype=dtype) for _ in range(2))
    lengths = [0, 3, 7, 7, 1]
    for state in (plain, captured):
        model.prefill(x[:, :7], starts[:, :7], state, lengths=lengths)
    captured.cuda_graph = CUDAGraphSteps(model.decode, captured, fewest_slots=8)
    for t in range(20):
        want = model.step(x[:, t], starts[:, t], plain)
        with torch.inference_mode():  # as a policy acts
            got = model.step(x[:, t], starts[:, t], captured)
        assert (got - want).abs().max() < (1e-4 if dtype == torch.float32 else 5e-2)
    assert captured.cuda_graph.graph_slots == [8, 16, 31]
    captured.reset([2])
    assert captured.lengths.tolist() == [20, 23, 0, 27, 21]


def test_cached_steps_equal_the_full_pass_on_cuda():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.preset("tiny"), max_episode_steps=50).cuda()
    x = torch.randn(3, 40, 64, device="cuda")
    starts = torch.rand(3, 40, device="cuda") < 0.1
    y = model(x, starts)
    state = model.initial_state(3, 40)
    for t in range(40):
        assert (model.step(x[:, t], starts[:, t], state) - y[:, t]).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_frozen_vit_computes_in_the_type_of_its_features(dtype):
    torch.manual_seed(0)
    sizes = VitConfig(width=64, depth=2, heads=2, patch=8, image_size=32)
    spec = ImageSpec("colour", 40, 40, 3)
    encoder = ImageEncoder(EncoderConfig(visual=VisualKind.VIT, vit=sizes), spec).cuda()
    images = torch.randint(0, 256, (3, 5, 40, 40, 3), dtype=torch.uint8)
    computed = []
    encoder.backbone.blocks[0].mlp.fc1.register_forward_hook(
        lambda module, inputs, output: computed.append(output.dtype)
    )
    features = encoder.frozen(images, dtype)
    assert features.dtype is dtype
    assert computed == [dtype]
    want = encoder(images)
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 6e-2, torch.float32: 1e-5}[dtype]
    torch.testing.assert_close(features.float(), want, atol=tolerance, rtol=tolerance)
