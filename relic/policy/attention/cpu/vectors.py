"""Vector code that the compiler does not find by itself: a query against a cache, small products.

Loops over a head are short, and their length decides what LLVM makes of them: of 24 numbers good
vector code, of 16 or 20 code that is half as fast. Here the vectors are written out instead, as
LLVM's own vector types, which become what the machine has (AVX2, AVX-512, NEON). Functions are told
the head's size as a constant of the code.

Shapes: S slots, D numbers of a head, a multiple of 4, I inputs and O outputs of a product, B = 16
rows side by side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

Value = Builder = Any
"""Of llvmlite, whose own types say too little."""
_plain: Any = intrinsic
_literal: Any = intrinsic(prefer_literal=True)
_FLAGS = ("reassoc", "contract", "nsz", "arcp")
_FLOAT, _INDEX = ir.FloatType(), ir.IntType(64)
KEYS = 4
"""Keys that are scored at a time."""
BLOCK = 16
"""Rows that a product works on side by side."""
_LINE = 64
"""Bytes that memory gives at a time."""


def is_half(kind: types.Array) -> bool:
    """Return whether an array holds bfloat16, as the uint16 of its bits."""
    return kind.dtype == types.uint16


def _vector(lanes: int) -> ir.VectorType:
    return ir.VectorType(_FLOAT, lanes)


def _lanes(dim: int) -> int:
    """Return the numbers of a vector: the most that a machine has and that divide a head."""
    return next(lanes for lanes in (16, 8, 4) if dim % lanes == 0)


def _index(number: int) -> ir.Constant:
    return ir.Constant(_INDEX, number)


def _data(context: Any, builder: Builder, array_type: Any, array: Value) -> Value:
    """Return the address of an array's first number."""
    return context.make_array(array_type)(context, builder, array).data


def _pointer(builder: Builder, data: Value, offset: Value, lanes: int) -> Value:
    return builder.bitcast(builder.gep(data, [offset]), _vector(lanes).as_pointer())


def _load(builder: Builder, data: Value, offset: Value, lanes: int) -> Value:
    # Rows of a cache begin anywhere, so no more is promised than that numbers are whole.
    return builder.load(_pointer(builder, data, offset, lanes), align=4)


def _load_cached(
    builder: Builder, kind: types.Array, data: Value, offset: Value, lanes: int
) -> Value:
    """Load numbers of a cache: floats, or the upper halves of floats (bfloat16)."""
    if not is_half(kind):
        return _load(builder, data, offset, lanes)
    halves, words = (ir.VectorType(ir.IntType(bits), lanes) for bits in (16, 32))
    pointer = builder.bitcast(builder.gep(data, [offset]), halves.as_pointer())
    wide = builder.zext(builder.load(pointer, align=2), words)
    sixteen = ir.Constant(words, [16] * lanes)
    return builder.bitcast(builder.shl(wide, sixteen), _vector(lanes))


def _store(builder: Builder, vector: Value, data: Value, offset: Value) -> None:
    builder.store(vector, _pointer(builder, data, offset, vector.type.count), align=4)


def _pick(builder: Builder, x: Value, y: Value, lanes: Iterable[int]) -> Value:
    """Return chosen lanes of two vectors that stand one after the other."""
    chosen = list(lanes)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen)
    return builder.shuffle_vector(x, y, mask)


def _spread(builder: Builder, number: Value, lanes: int) -> Value:
    """Return a vector of one number."""
    empty = ir.Constant(_vector(lanes), ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    return _pick(builder, first, first, [0] * lanes)


def _halved(builder: Builder, vector: Value) -> Value:
    """Return the sums of both halves of a vector."""
    lanes = vector.type.count
    low = _pick(builder, vector, vector, range(lanes // 2))
    high = _pick(builder, vector, vector, range(lanes // 2, lanes))
    return builder.fadd(low, high, flags=_FLAGS)


def _four_sums(builder: Builder, vectors: list[Value]) -> Value:
    """Return the sums of four vectors, as one of four lanes: less work than one by one."""
    while vectors[0].type.count > KEYS:
        vectors = [_halved(builder, vector) for vector in vectors]

    def joined(x: Value, y: Value, low: list[int], high: list[int]) -> Value:
        halves = _pick(builder, x, y, low), _pick(builder, x, y, high)
        return builder.fadd(*halves, flags=_FLAGS)

    x, y, z, w = vectors
    xy, zw = (joined(*pair, [0, 4, 1, 5], [2, 6, 3, 7]) for pair in ((x, y), (z, w)))
    return joined(xy, zw, [0, 1, 4, 5], [2, 3, 6, 7])


def _fetch(
    builder: Builder, kind: types.Array, data: Value, first: Value, rows: int, dim: int
) -> None:
    """Ask memory for some rows of a cache, which are read soon."""
    address, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    called = ir.FunctionType(ir.VoidType(), [address, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, called, "llvm.prefetch.p0")
    begin = builder.bitcast(builder.gep(data, [builder.mul(first, _index(dim))]), address)
    # To be read, into the nearest cache, as data.
    how = [ir.Constant(number, value) for value in (0, 3, 1)]
    for line in range(0, (2 if is_half(kind) else 4) * rows * dim, _LINE):
        builder.call(function, [builder.gep(begin, [_index(line)]), *how])


@_literal
def score_four(typingctx, a_D, key_SD, first, s_S, next_SD, dim):
    """Set s[j] to the product of a and key j, for the four keys from `first` on.

    The same rows of `next_SD` are fetched meanwhile.
    """
    size = dim.literal_value
    lanes = _lanes(size)

    def codegen(context, builder, signature, args):
        a, key, s, following = (
            _data(context, builder, signature.args[i], args[i]) for i in (0, 1, 3, 4)
        )
        keys, followers = signature.args[1], signature.args[4]
        _fetch(builder, followers, following, args[2], KEYS, size)
        begin = builder.mul(args[2], _index(size))
        sums: list[Any] = [None] * KEYS
        for part in range(0, size, lanes):
            query = _load(builder, a, _index(part), lanes)
            for j in range(KEYS):
                at = builder.add(begin, _index(j * size + part))
                numbers = _load_cached(builder, keys, key, at, lanes)
                product = builder.fmul(query, numbers, flags=_FLAGS)
                sums[j] = builder.fadd(sums[j], product, flags=_FLAGS) if part else product
        _store(builder, _four_sums(builder, sums), s, args[2])
        return context.get_dummy_value()

    return types.void(a_D, key_SD, first, s_S, next_SD, dim), codegen


@_literal
def gather(typingctx, s_S, value_SD, length, o_D, next_SD, dim):
    """Add to o the sum of the first values weighted by s; an even number of them.

    The same rows of `next_SD` are fetched meanwhile.
    """
    size = dim.literal_value
    lanes = _lanes(size)

    def codegen(context, builder, signature, args):
        s, value, o, following = (
            _data(context, builder, signature.args[i], args[i]) for i in (0, 1, 3, 4)
        )
        parts = range(0, size, lanes)
        # Two sums that do not wait for each other. They become registers.
        zero = ir.Constant(_vector(lanes), None)
        begun = [_load(builder, o, _index(part), lanes) for part in parts]
        sums = [[cgutils.alloca_once(builder, zero.type) for _ in parts] for _ in range(2)]
        for total, rest, start in zip(*sums, begun, strict=True):
            builder.store(start, total)
            builder.store(zero, rest)
        loop = cgutils.for_range_slice(builder, _index(0), args[2], _index(2), intp=_INDEX)
        with loop as (first, _):
            _fetch(builder, signature.args[4], following, first, 2, size)
            for j, totals in enumerate(sums):
                row = builder.add(first, _index(j))
                weight = _spread(builder, builder.load(builder.gep(s, [row])), lanes)
                begin = builder.mul(row, _index(size))
                for part, total in zip(parts, totals, strict=True):
                    at = builder.add(begin, _index(part))
                    numbers = _load_cached(builder, signature.args[1], value, at, lanes)
                    product = builder.fmul(weight, numbers, flags=_FLAGS)
                    builder.store(builder.fadd(builder.load(total), product, flags=_FLAGS), total)
        for part, *totals in zip(parts, *sums, strict=True):
            both = builder.fadd(*(builder.load(total) for total in totals), flags=_FLAGS)
            _store(builder, both, o, _index(part))
        return context.get_dummy_value()

    return types.void(s_S, value_SD, length, o_D, next_SD, dim), codegen


@_literal
def multiply(typingctx, weight_OI, x_IB, first, out_OB, count):
    """Write some outputs, from `first` on, of weight @ x: as many as have sums in registers.

    Rows lie side by side in vectors, so a weight is loaded once for all of them, as it is stored.
    """
    outputs = count.literal_value

    def codegen(context, builder, signature, args):
        weight = context.make_array(signature.args[0])(context, builder, args[0])
        inputs = cgutils.unpack_tuple(builder, weight.shape)[1]
        x, out = (_data(context, builder, signature.args[i], args[i]) for i in (1, 3))
        index = [builder.add(args[2], _index(k)) for k in range(outputs)]
        rows = [builder.gep(weight.data, [builder.mul(at, inputs)]) for at in index]
        zero = ir.Constant(_vector(BLOCK), None)
        sums = [cgutils.alloca_once(builder, zero.type) for _ in rows]
        for total in sums:
            builder.store(zero, total)
        with cgutils.for_range(builder, inputs, intp=_INDEX) as loop:
            numbers = _load(builder, x, builder.mul(loop.index, _index(BLOCK)), BLOCK)
            for row, total in zip(rows, sums, strict=True):
                factor = _spread(builder, builder.load(builder.gep(row, [loop.index])), BLOCK)
                product = builder.fmul(factor, numbers, flags=_FLAGS)
                builder.store(builder.fadd(builder.load(total), product, flags=_FLAGS), total)
        for at, total in zip(index, sums, strict=True):
            _store(builder, builder.load(total), out, builder.mul(at, _index(BLOCK)))
        return context.get_dummy_value()

    return types.void(weight_OI, x_IB, first, out_OB, count), codegen


@_plain
def gather_four(typingctx, s_4J, vt_DJ, out_4D, d, length):
    """Set four numbers of four outputs, from `d` on, to sums of values weighted by s.

    The first `length` keys count, a multiple of 16. Sixteen vectors of sums ask for the registers
    of AVX-512: each vector that is loaded is used four times.
    """
    lanes = 16

    def codegen(context, builder, signature, args):
        arrays = [
            context.make_array(kind)(context, builder, array)
            for kind, array in zip(signature.args[:3], args[:3], strict=True)
        ]
        strides = [cgutils.unpack_tuple(builder, array.shape)[1] for array in arrays]
        d, length = args[3:]
        rows = [builder.mul(_index(i), strides[0]) for i in range(4)]
        columns = [builder.mul(builder.add(d, _index(i)), strides[1]) for i in range(4)]
        zero = ir.Constant(_vector(lanes), None)
        # Variables of the stack that become registers.
        sums = [[cgutils.alloca_once(builder, zero.type) for _ in columns] for _ in rows]
        for total in itertools.chain(*sums):
            builder.store(zero, total)
        loop = cgutils.for_range_slice(builder, _index(0), length, _index(lanes), intp=_INDEX)
        with loop as (j, _):
            weights, values = (
                [_load(builder, array.data, builder.add(begin, j), lanes) for begin in begins]
                for array, begins in zip(arrays[:2], (rows, columns), strict=True)
            )
            for total, (x, y) in zip(
                itertools.chain(*sums), itertools.product(weights, values), strict=True
            ):
                product = builder.fmul(x, y, flags=_FLAGS)
                builder.store(builder.fadd(builder.load(total), product, flags=_FLAGS), total)
        for i, totals in enumerate(sums):
            four = _four_sums(builder, [builder.load(total) for total in totals])
            at = builder.add(builder.mul(_index(i), strides[2]), d)
            _store(builder, four, arrays[2].data, at)
        return context.get_dummy_value()

    return types.void(s_4J, vt_DJ, out_4D, types.int64, types.int64), codegen
