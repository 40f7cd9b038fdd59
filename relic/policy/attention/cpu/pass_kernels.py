"""Compiled float32 attention for the CPU, several times faster than general kernels on small heads.

Heads are small (8 to 64 numbers) and contexts long, so loops over a head are too short to fill
vector units. Keys and values are therefore transposed once per head, and every inner loop runs
along the keys. Queries go four at a time, so that a key that was loaded is used four times. Query t
sees the first `before + t + 1` keys: the mask is in the loops' bounds, and what nobody sees costs
nothing. The scores of four queries are all that is ever held of the T x J matrix. Only arrays come
in here; `compiled.py` joins this to PyTorch.

Shapes: N rows, H heads, T queries, J keys, P past steps, K sinks, D head dim (a multiple of 4),
4 queries of one block.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numba
import numpy as np

from relic.policy.attention.cpu.arithmetic import FAST, exp, f4, ordered
from relic.policy.attention.cpu.vectors import gather_four

# Of any strides: projections, caches and the threads' slices are views and come without a copy.
_ARRAY = "float32[:,:,:,:]"
_LEAST = np.int32(-(2**31))
_MANY_REGISTERS = bool(llvm.get_host_cpu_features().get("avx512f"))


@numba.njit(fastmath=FAST, inline="always")
def _score(a_4D, kt_DJ, s_4J, length):
    """Set s[r, j] to the product of a[r] and key j.

    Four numbers of the head at once, written out: the sixteen factors stay in registers while the
    loop runs along the keys, and each score is loaded and stored once for four products. The first
    four set the scores, which spares a pass of zeros.
    """
    for d in range(0, a_4D.shape[1], 4):
        a00, a01, a02, a03 = a_4D[0, d], a_4D[0, d + 1], a_4D[0, d + 2], a_4D[0, d + 3]
        a10, a11, a12, a13 = a_4D[1, d], a_4D[1, d + 1], a_4D[1, d + 2], a_4D[1, d + 3]
        a20, a21, a22, a23 = a_4D[2, d], a_4D[2, d + 1], a_4D[2, d + 2], a_4D[2, d + 3]
        a30, a31, a32, a33 = a_4D[3, d], a_4D[3, d + 1], a_4D[3, d + 2], a_4D[3, d + 3]
        if d == 0:
            for j in range(length):
                x0, x1, x2, x3 = kt_DJ[d, j], kt_DJ[d + 1, j], kt_DJ[d + 2, j], kt_DJ[d + 3, j]
                s_4J[0, j] = a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                s_4J[1, j] = a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                s_4J[2, j] = a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                s_4J[3, j] = a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
        else:
            for j in range(length):
                x0, x1, x2, x3 = kt_DJ[d, j], kt_DJ[d + 1, j], kt_DJ[d + 2, j], kt_DJ[d + 3, j]
                s_4J[0, j] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                s_4J[1, j] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                s_4J[2, j] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                s_4J[3, j] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3


@numba.njit(fastmath=FAST, inline="always")
def _softmax(s_4J, own_4, length, low_4, total_4):
    """Turn scores into weights that are not yet divided by their totals.

    Scalars stand for the four rows, since sums in an array would be stored at every step.
    """
    # Unseen keys of the block are minus infinity while the largest is sought, and so never it.
    for r in range(4):
        # Unsigned for the reason that `_spread` gives.
        for j in range(np.uint64(own_4[r]), np.uint64(length)):
            s_4J[r, j] = -np.inf
    bits_4J = s_4J.view(np.int32)
    m0, m1, m2, m3 = _LEAST, _LEAST, _LEAST, _LEAST
    for j in range(length):
        m0, m1 = max(m0, ordered(bits_4J[0, j])), max(m1, ordered(bits_4J[1, j]))
        m2, m3 = max(m2, ordered(bits_4J[2, j])), max(m3, ordered(bits_4J[3, j]))
    low_4[0], low_4[1] = ordered(m0).view(np.float32), ordered(m1).view(np.float32)
    low_4[2], low_4[3] = ordered(m2).view(np.float32), ordered(m3).view(np.float32)
    # The largest score of a row becomes 0: nothing overflows, and `exp` takes no more than 0.
    _exp_rows(s_4J, low_4, own_4, length)
    t0 = t1 = t2 = t3 = f4(0.0)
    for j in range(length):
        t0 += s_4J[0, j]
        t1 += s_4J[1, j]
        t2 += s_4J[2, j]
        t3 += s_4J[3, j]
    total_4[0], total_4[1], total_4[2], total_4[3] = t0, t1, t2, t3


@numba.njit(fastmath=FAST, inline="always")
def _exp_rows(s_4J, low_4, own_4, length):
    """Replace s[r, j] by exp(s[r, j] - low[r]), and by zero where row r does not see key j."""
    m0, m1, m2, m3 = low_4[0], low_4[1], low_4[2], low_4[3]
    for j in range(length):
        s_4J[0, j] = exp(s_4J[0, j] - m0)
        s_4J[1, j] = exp(s_4J[1, j] - m1)
        s_4J[2, j] = exp(s_4J[2, j] - m2)
        s_4J[3, j] = exp(s_4J[3, j] - m3)
    # This exp gives an unseen key 1e-38, not nothing, so its weight is set.
    for r in range(4):
        for j in range(np.uint64(own_4[r]), np.uint64(length)):
            s_4J[r, j] = f4(0.0)


@numba.njit(fastmath=FAST, inline="always")
def _softmax_backward(s_4J, ds_4J, log_total_4, delta_4, own_4, length):
    """Turn scores into weights, and the gradients of weights into those of scores.

    `delta` is the product of each query's output and its gradient: the sum over keys of weight
    times gradient, which the softmax's derivative asks for, without a loop over the keys.
    Weights come out divided, since `log_total` holds the denominators of the forward pass.
    """
    for r in range(4):
        low, delta = log_total_4[r], delta_4[r]
        for j in range(np.uint64(own_4[r])):
            weight = exp(s_4J[r, j] - low)
            s_4J[r, j] = weight
            ds_4J[r, j] = weight * (ds_4J[r, j] - delta)
        for j in range(np.uint64(own_4[r]), np.uint64(length)):
            s_4J[r, j] = f4(0.0)
            ds_4J[r, j] = f4(0.0)


@numba.njit(fastmath=FAST, inline="always")
def _gather(s_4J, vt_DJ, out_4D, length):
    """Set out[r] to the sum of the values weighted by s[r]."""
    if _MANY_REGISTERS:
        for d in range(0, out_4D.shape[1], 4):
            gather_four(s_4J, vt_DJ, out_4D, d, length)
        return
    for d in range(0, out_4D.shape[1], 2):
        # Two numbers of the head at once: eight sums stay in registers while the loop runs along
        # the keys.
        b00 = b01 = b10 = b11 = b20 = b21 = b30 = b31 = f4(0.0)
        for j in range(length):
            x0, x1 = vt_DJ[d, j], vt_DJ[d + 1, j]
            b00 += s_4J[0, j] * x0
            b01 += s_4J[0, j] * x1
            b10 += s_4J[1, j] * x0
            b11 += s_4J[1, j] * x1
            b20 += s_4J[2, j] * x0
            b21 += s_4J[2, j] * x1
            b30 += s_4J[3, j] * x0
            b31 += s_4J[3, j] * x1
        out_4D[0, d], out_4D[0, d + 1] = b00, b01
        out_4D[1, d], out_4D[1, d + 1] = b10, b11
        out_4D[2, d], out_4D[2, d + 1] = b20, b21
        out_4D[3, d], out_4D[3, d + 1] = b30, b31


@numba.njit(fastmath=FAST, inline="always")
def _spread(s_4J, a_4D, grad_DJ, first, length):
    """Add to the gradient of each key from `first` on: the sum of a[r] weighted by s[r]."""
    for d in range(0, a_4D.shape[1], 2):
        a00, a01, a10, a11 = a_4D[0, d], a_4D[0, d + 1], a_4D[1, d], a_4D[1, d + 1]
        a20, a21, a30, a31 = a_4D[2, d], a_4D[2, d + 1], a_4D[3, d], a_4D[3, d + 1]
        # An unsigned index cannot count from the end, which would forbid vector loads.
        for j in range(np.uint64(first), np.uint64(length)):
            s0, s1, s2, s3 = s_4J[0, j], s_4J[1, j], s_4J[2, j], s_4J[3, j]
            grad_DJ[d, j] += s0 * a00 + s1 * a10 + s2 * a20 + s3 * a30
            grad_DJ[d + 1, j] += s0 * a01 + s1 * a11 + s2 * a21 + s3 * a31


@numba.njit(inline="always")
def _whole(length):
    """Return a length rounded up to a cache line of 16 numbers."""
    return (length + 15) // 16 * 16


@numba.njit(inline="always")
def _matrix(height, length):
    """Return zeros whose rows begin cache lines: vectors that straddle two of them cost twice."""
    width = _whole(length)
    # A cache line has 64 bytes. 16 numbers more leave room to begin at the next one.
    flat = np.zeros(height * width + 16, f4)
    begin = (64 - flat.ctypes.data % 64) // 4
    return flat[begin : begin + height * width].reshape((height, width))


@numba.njit(inline="always")
def _load_keys(past_NHPD, sink_NHKD, own_NHTD, n, h, out_DJ):
    """Write one head's keys (or values) side by side: past, sinks, the steps' own."""
    num_past, num_sinks, num_own = past_NHPD.shape[2], sink_NHKD.shape[2], own_NHTD.shape[2]
    for d in range(out_DJ.shape[0]):
        for j in range(num_past):
            out_DJ[d, j] = past_NHPD[n, h, j, d]
    for j in range(num_sinks):
        for d in range(out_DJ.shape[0]):
            out_DJ[d, num_past + j] = sink_NHKD[n, h, j, d]
    for j in range(num_own):
        for d in range(out_DJ.shape[0]):
            out_DJ[d, num_past + num_sinks + j] = own_NHTD[n, h, j, d]


@numba.njit(inline="always")
def _unload(grad_DJ, first, n, h, out_NHJD):
    """Write one head's gradients of keys `first` and on."""
    for j in range(out_NHJD.shape[2]):
        for d in range(out_NHJD.shape[3]):
            out_NHJD[n, h, j, d] = grad_DJ[d, first + j]


@numba.njit(inline="always")
def _load_queries(q_NHTD, n, h, t, scale, out_4D):
    """Write four queries, scaled; zeros stand where the last block is short."""
    for r in range(4):
        for d in range(out_4D.shape[1]):
            out_4D[r, d] = q_NHTD[n, h, t + r, d] * scale if t + r < q_NHTD.shape[2] else f4(0.0)


@numba.njit(inline="always")
def _row_products(a_4D, b_4D, out_4):
    for r in range(4):
        out_4[r] = f4(0.0)
        for d in range(a_4D.shape[1]):
            out_4[r] += a_4D[r, d] * b_4D[r, d]


@numba.njit(inline="always")
def _own_lengths(t, num_steps, before, own_4):
    """Say how many keys each query of a block sees; return the most, rounded up.

    To whole vectors: what stands behind the last key is zeros, which no query sees, while the rest
    of a loop over keys, one by one, would cost as much as hundreds of them.
    """
    length = before + min(t + 4, num_steps)
    for r in range(4):
        # Queries that fill up a short last block see no more than the last one does.
        own_4[r] = min(before + t + r + 1, length)
    return _whole(length)


@numba.njit(
    f"void({', '.join([_ARRAY] * 7)}, float32, {_ARRAY}, float32[:,:,:])",
    fastmath=FAST,
    # No check for division by zero, which would be a branch. No lock, as threads share the work.
    # Kept on disk, since compiling is slow.
    error_model="numpy",
    nogil=True,
    cache=True,
)
def attend_forward(q, k, v, past_k, past_v, sink_k, sink_v, scale, out, log_total):
    """Attend; write outputs and the logarithm of each softmax's denominator.

    Args:
        q: (N, H, T, D), as k and v of the same steps.
        k: Keys.
        v: Values.
        past_k: Keys of steps before, (N, H, P, D); P may be 0.
        past_v: Values of steps before.
        sink_k: Keys of sinks, (N, H, K, D); K may be 0.
        sink_v: Values of sinks.
        scale: Factor of the scores.
        out: (N, H, T, D), written.
        log_total: (N, H, T), written.
    """
    num_rows, num_heads, num_steps, head_dim = q.shape
    before = past_k.shape[2] + sink_k.shape[2]
    length = before + num_steps
    kt, vt = _matrix(head_dim, length), _matrix(head_dim, length)
    s = _matrix(4, length)
    a, o = np.zeros((4, head_dim), f4), np.zeros((4, head_dim), f4)
    low, total, own = np.zeros(4, f4), np.zeros(4, f4), np.zeros(4, np.int64)
    for n in range(num_rows):
        for h in range(num_heads):
            _load_keys(past_k, sink_k, k, n, h, kt)
            _load_keys(past_v, sink_v, v, n, h, vt)
            for t in range(0, num_steps, 4):
                length = _own_lengths(t, num_steps, before, own)
                _load_queries(q, n, h, t, scale, a)
                _score(a, kt, s, length)
                _softmax(s, own, length, low, total)
                _gather(s, vt, o, length)
                for r in range(min(4, num_steps - t)):
                    # All that the backward pass needs to make the weights again: they are never
                    # kept.
                    log_total[n, h, t + r] = low[r] + np.log(total[r])
                    # Outputs are divided instead of weights: D divisions, not one per key.
                    inverse = f4(1.0) / total[r]
                    for d in range(head_dim):
                        out[n, h, t + r, d] = o[r, d] * inverse


@numba.njit(
    f"void({', '.join([_ARRAY] * 8)}, float32[:,:,:], {_ARRAY}, float32, "
    f"{', '.join([_ARRAY] * 5)})",
    fastmath=FAST,
    error_model="numpy",
    nogil=True,
    cache=True,
)
def attend_backward(
    q,
    k,
    v,
    past_k,
    past_v,
    sink_k,
    sink_v,
    out,
    log_total,
    grad_out,
    scale,
    grad_q,
    grad_k,
    grad_v,
    grad_sink_k,
    grad_sink_v,
):
    """Write the gradients of `attend_forward`; the past is constant.

    The arguments up to `log_total` are as there, the last two as it wrote them. `grad_q` and all
    after it are written; those of the sinks, (N, H, K, D), are each row's own share.
    """
    num_rows, num_heads, num_steps, head_dim = q.shape
    num_past, num_sinks = past_k.shape[2], sink_k.shape[2]
    before = num_past + num_sinks
    length = before + num_steps
    kt, vt = _matrix(head_dim, length), _matrix(head_dim, length)
    gkt, gvt = _matrix(head_dim, length), _matrix(head_dim, length)
    s, ds = _matrix(4, length), _matrix(4, length)
    a, g, o = np.zeros((4, head_dim), f4), np.zeros((4, head_dim), f4), np.zeros((4, head_dim), f4)
    low, delta, own = np.zeros(4, f4), np.zeros(4, f4), np.zeros(4, np.int64)
    for n in range(num_rows):
        for h in range(num_heads):
            _load_keys(past_k, sink_k, k, n, h, kt)
            _load_keys(past_v, sink_v, v, n, h, vt)
            gkt[:] = f4(0.0)
            gvt[:] = f4(0.0)
            for t in range(0, num_steps, 4):
                length = _own_lengths(t, num_steps, before, own)
                _load_queries(q, n, h, t, scale, a)
                _load_queries(grad_out, n, h, t, f4(1.0), g)
                _load_queries(out, n, h, t, f4(1.0), o)
                for r in range(4):
                    # Queries beyond the last one have no gradient, whatever weights they get.
                    low[r] = log_total[n, h, t + r] if t + r < num_steps else f4(0.0)
                _score(a, kt, s, length)
                _score(g, vt, ds, length)
                _row_products(g, o, delta)
                _softmax_backward(s, ds, low, delta, own, length)
                # The outputs have served: from here on `o` holds the gradients of the queries.
                _gather(ds, kt, o, length)
                # From the sinks on: the past is constant and takes no gradient.
                _spread(ds, a, gkt, num_past, length)
                _spread(s, g, gvt, num_past, length)
                for r in range(min(4, num_steps - t)):
                    for d in range(head_dim):
                        # Keys met scaled queries, so their gradients are scaled already; this one
                        # is not.
                        grad_q[n, h, t + r, d] = o[r, d] * scale
            _unload(gkt, num_past, n, h, grad_sink_k)
            _unload(gvt, num_past, n, h, grad_sink_v)
            _unload(gkt, before, n, h, grad_k)
            _unload(gvt, before, n, h, grad_v)
