import itertools
import logging
import math
import sys
import types

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from relic.policy.attention.attend import announce, attend
from relic.policy.attention.inputs import AttentionInputs, Past, Sinks
from relic.policy.attention.kinds import AttentionBackend
from relic.policy.attention.packed import flash_kernel, packed_attention
from relic.policy.attention.segments import Segments

N, H, T, D, SLOTS = 3, 2, 23, 8, 7
REFERENCE, SDPA = AttentionBackend.REFERENCE, AttentionBackend.SDPA
PASTS = {
    None: None,
    "alike": [7, 7, 7],
    "ragged": [0, 3, 7],
    "ring": [4, 9, 16],  # more steps than slots: the newest are kept
}


def packed_loop(q, k, v, cu_q, cu_k, max_q, max_k, *, window, scale):
    """What a packed kernel promises: causal per segment, aligned to the bottom right."""
    assert max_q == int(cu_q.diff().max())
    assert max_k == int(cu_k.diff().max())
    outputs = []
    for i in range(len(cu_q) - 1):
        q_i, k_i, v_i = (
            x[c[i] : c[i + 1]].transpose(0, 1) for x, c in ((q, cu_q), (k, cu_k), (v, cu_k))
        )
        ahead = torch.arange(q_i.shape[1])[:, None] + k_i.shape[1] - q_i.shape[1]
        ahead = ahead - torch.arange(k_i.shape[1])
        seen = (ahead >= 0) & ((ahead <= window) | (window < 0))
        score = (q_i @ k_i.transpose(1, 2) * scale).masked_fill(~seen, -math.inf)
        outputs.append((score.softmax(-1) @ v_i).transpose(0, 1))
    return torch.cat(outputs)


class Case:
    """Random inputs of one kind of pass."""

    def __init__(self, num_sinks=1, past=None, segmented=False, window=None, sink_query=False):
        self.tensors = [torch.randn(N, H, T, D, requires_grad=True) for _ in range(3)]
        self.sinks = None
        if num_sinks:
            self.sinks = Sinks(*(torch.randn(H, num_sinks, D, requires_grad=True) for _ in "kv"))
        self.sink_query = torch.randn(N, H, T, D, requires_grad=True) if sink_query else None
        self.window = window
        self.starts = torch.rand(N, T) < 0.2 if segmented else None
        steps = PASTS[past]
        self.steps = None if steps is None else np.array(steps)
        self.past = None
        if steps is not None:
            cached = [torch.randn(N, H, SLOTS, D) for _ in "kv"]
            for n, count in enumerate(steps):
                for x in cached:
                    x[n, :, count:] = math.nan
            self.past = Past(*cached)

    @property
    def inputs(self):
        extra = [] if self.sink_query is None else [self.sink_query]
        return [*self.tensors, *(self.sinks or ()), *extra]

    def segments(self):
        slots = 0 if self.steps is None else SLOTS
        return Segments(N, T, starts_NT=self.starts, past_steps=self.steps, past_slots=slots)

    def run(self, backend):
        return attend(
            *self.tensors,
            sinks=self.sinks,
            sink_query=self.sink_query,
            past=self.past,
            segments=self.segments(),
            window=self.window,
            backend=backend,
        )

    def run_packed(self, kernel=packed_loop):
        inputs = AttentionInputs(
            *self.tensors,
            sinks=self.sinks,
            past=self.past,
            segments=self.segments(),
            window=self.window,
            scale=D**-0.5,
        )
        return packed_attention(kernel, inputs)

    def detach(self):
        self.tensors = [x.detach() for x in self.tensors]
        self.sinks = self.sinks and Sinks(*(x.detach() for x in self.sinks))
        self.sink_query = None if self.sink_query is None else self.sink_query.detach()
        return self


def by_hand(case: Case):
    """Attention of one query at a time, over a list of the keys that it may see."""
    q, k, v = case.tensors
    starts = case.segments().starts_NT
    steps = [0] * N if case.steps is None else case.steps.tolist()
    out = torch.zeros(N, H, T, D)
    for n, h, t in itertools.product(range(N), range(H), range(T)):
        seen = []
        first = t
        while first > 0 and not (starts is not None and starts[n, first]):
            first -= 1
        runs_on = first == 0 and not (starts is not None and starts[n, 0])
        seen += [(t - j, q[n, h, t], k[n, h, j], v[n, h, j]) for j in range(first, t + 1)]
        if case.past is not None and runs_on:
            for i in range(max(0, steps[n] - SLOTS), steps[n]):
                slot = i % SLOTS
                key, value = case.past.key[n, h, slot], case.past.value[n, h, slot]
                seen.append((steps[n] + t - i, q[n, h, t], key, value))
        if case.window is not None:
            seen = [s for s in seen if s[0] < case.window]
        if case.sinks is not None:
            against = q if case.sink_query is None else case.sink_query
            pairs = zip(case.sinks.key[h], case.sinks.value[h], strict=True)
            seen += [(0, against[n, h, t], key, value) for key, value in pairs]
        weight = torch.stack([a @ b for _, a, b, _ in seen])
        weight = (weight / math.sqrt(D)).softmax(0)
        out[n, h, t] = sum(w * s[3] for w, s in zip(weight, seen, strict=True))
    return out


ALL_CASES = [
    {"num_sinks": k, "past": p, "segmented": s, "window": w}
    for k, p, s, w in itertools.product((0, 1, 3), PASTS, (False, True), (None, 5, 40))
]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_sinks": 2, "past": "ring", "segmented": True, "window": 9},
        {"num_sinks": 0, "past": "ragged"},
        {"num_sinks": 2, "sink_query": True, "segmented": True},
    ],
)
def test_the_reference_is_attention_done_by_hand(options):
    case = Case(**options).detach()
    torch.testing.assert_close(case.run(REFERENCE), by_hand(case), rtol=0, atol=1e-5)


def value_and_gradients(case, out):
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    return [out, *torch.autograd.grad((out * weight).sum(), case.inputs)]


@pytest.mark.parametrize("num_sinks", [0, 1, 3])
@pytest.mark.parametrize("past", list(PASTS))
def test_backends_agree_in_values_and_gradients(num_sinks, past):
    for segmented, window, sink_query in itertools.product((False, True), (None, 5, 40), (0, 1)):
        if sink_query and not num_sinks:
            continue
        case = Case(num_sinks, past, segmented, window, bool(sink_query))
        want = value_and_gradients(case, case.run(REFERENCE))
        got = [value_and_gradients(case, case.run(SDPA))]
        if not sink_query and (window is None or not num_sinks):
            got.append(value_and_gradients(case, case.run_packed()))
        for result in got:
            for a, b in zip(result, want, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", ALL_CASES, ids=str)
def test_sdpa_always_takes_a_fused_kernel(options):
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        out = Case(**options).run(SDPA)
        out.sum().backward()
    assert out.isfinite().all()


def test_no_mask_grows_with_the_square_of_the_context(monkeypatch):
    largest = []
    run = torch.nn.functional.scaled_dot_product_attention

    def watched(*args, attn_mask=None, **kwargs):
        largest.append(0 if attn_mask is None else attn_mask.numel())
        return run(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    q = torch.randn(2, 1, 512, 4)
    starts = torch.rand(2, 512) < 0.02
    sinks = Sinks(torch.randn(1, 1, 4), torch.randn(1, 1, 4))
    segments = Segments(2, 512, starts_NT=starts)
    attend(q, q, q, sinks=sinks, segments=segments, backend=SDPA)
    assert max(largest) == 0
    attend(q, q, q, sinks=sinks, window=16, backend=SDPA)
    assert max(largest) == 16 * (1 + 32)
    past = Past(torch.randn(2, 1, 100, 4), torch.randn(2, 1, 100, 4))
    on_past = Segments(2, 64, past_steps=np.array([100, 40]), past_slots=100)
    attend(*[q[:, :, :64]] * 3, sinks=sinks, past=past, segments=on_past, backend=SDPA)
    assert max(largest) == 64 * (1 + 100 + 64)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "compiled", "packed"])
def test_changing_the_future_never_changes_the_past(backend):
    plain = backend == "compiled"
    for past, segmented in itertools.product((None, "alike"), (False,) if plain else (False, True)):
        case = Case(2, past, segmented).detach()

        def run(case=case):
            return case.run_packed() if backend == "packed" else case.run(AttentionBackend(backend))

        before = run()
        for cut in (1, 9, T - 1):
            own = case.tensors
            case.tensors = [torch.cat([x[:, :, :cut], x[:, :, cut:] + 1], dim=2) for x in own]
            torch.testing.assert_close(run()[:, :, :cut], before[:, :, :cut], rtol=0, atol=1e-6)
            case.tensors = own


def test_k0v0_is_softmax_with_one_added_to_the_denominator():
    q, k, v = torch.randn(3, 2, 2, 6, 4)
    zero = torch.zeros(2, 1, 4)
    out = attend(q, k, v, sinks=Sinks(zero, zero), backend=SDPA)
    weight = torch.exp(q @ k.transpose(-1, -2) / 2).tril()
    want = weight @ v / (1 + weight.sum(-1, keepdim=True))
    torch.testing.assert_close(out, want)


def test_several_equal_sinks_weigh_as_often_as_they_stand_there():
    q, k, v = torch.randn(3, 2, 2, 6, 4)
    key, value = torch.randn(2, 2, 1, 4)
    out = attend(q, k, v, sinks=Sinks(key.repeat(1, 3, 1), value.repeat(1, 3, 1)), backend=SDPA)
    weight = torch.exp(q @ k.transpose(-1, -2) / 2).tril()
    sink = 3 * torch.exp(q @ key.transpose(-1, -2) / 2)
    want = (weight @ v + sink * value) / (weight.sum(-1, keepdim=True) + sink)
    torch.testing.assert_close(out, want)


def test_sinks_may_differ_by_row():
    case = Case(2, segmented=True).detach()
    assert case.sinks is not None
    case.sinks = Sinks(*(torch.randn(N, *x.shape) for x in case.sinks))
    torch.testing.assert_close(case.run(SDPA), case.run(REFERENCE))
    torch.testing.assert_close(case.run_packed(), case.run(REFERENCE))


def flash_2(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
            softmax_scale=None, causal=False, window_size=(-1, -1)):  # fmt: skip
    """A stand-in with the parameters of flash-attn 2's function of this kind."""
    assert causal
    assert dropout_p == 0
    return packed_loop(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
        window=window_size[0], scale=softmax_scale,
    )  # fmt: skip


def flash_3(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None,
            seqused_k=None, softmax_scale=None, causal=False, qv=None,
            window_size=(-1, -1)):  # fmt: skip
    """The same of flash-attn 3, whose early releases return more than the output."""
    assert seqused_q is seqused_k is qv is None
    head = (q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, 0.0)
    return flash_2(*head, softmax_scale, causal, window_size), None


@pytest.mark.parametrize(
    ("name", "function"), [("flash_attn", flash_2), ("flash_attn_interface", flash_3)]
)
def test_versions_of_flash_attn_are_called_as_they_want(monkeypatch, name, function):
    module = types.ModuleType(name)
    module.__dict__["flash_attn_varlen_func"] = function
    monkeypatch.setitem(sys.modules, name, module)
    for num_sinks, window in ((2, None), (0, 5)):
        case = Case(num_sinks, "ring", True, window).detach()
        out = case.run_packed(flash_kernel())
        torch.testing.assert_close(out, case.run(REFERENCE), rtol=0, atol=1e-5)


def test_auto_says_once_what_it_takes(caplog):
    announce.cache_clear()
    with caplog.at_level(logging.INFO):
        for options in ({}, {"segmented": True}, {"past": "alike"}):
            Case(**options).run(AttentionBackend.AUTO)
    said = [f"attention_backend auto: {name} on cpu" for name in ("compiled", "sdpa")]
    assert [r.message for r in caplog.records] == said


def test_backends_that_cannot_run_here_say_what_to_do():
    case = Case()
    with pytest.raises(ValueError, match=r"varlen must run on CUDA in float16 or bfloat16, got"):
        case.run(AttentionBackend.VARLEN)
    with pytest.raises(ImportError, match=r"needs the flash-attn package. Run `pip install"):
        case.run(AttentionBackend.FLASH)
    case.window = 3
    with pytest.raises(ValueError, match="must keep sinks inside a window"):
        case.run_packed()
