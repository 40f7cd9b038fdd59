"""Eight pixels at once: a SIMD value for numba, with the few operations that drawing needs.

LLVM's loop vectoriser gives up on z-buffer loops now and then, and by version; a vector type does
not. The pixel tests are written once over `+ - * < &` and the functions below, and take either
lanes (CPU) or scalars (CUDA, and any plain Python call). A scalar operand is spread over the lanes.

LLVM legalises the vectors for the host: one AVX register, two SSE or NEON registers.

Loads and stores check no bounds. Their arrays are C-contiguous; an index counts elements.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, overload, register_model

intrinsic = cast("Callable[[Callable[..., Any]], Callable[..., Any]]", numba_intrinsic)

Number = Any
"""In kernels: a float32, or lanes of them. Never a float64, which Python's floats would bring."""

LANES: Final = 8
"""Pixels in one vector. Row strides and column ranges are multiples of it."""


class LaneType(types.Type):
    """A vector of `LANES` elements, known to numba only inside compiled code."""

    def __init__(self, name: str, element: ir.Type) -> None:
        self.element = element
        super().__init__(name=name)


FLOATS: Final = LaneType("lanes(float32)", ir.FloatType())
INTS: Final = LaneType("lanes(int32)", ir.IntType(32))
MASKS: Final = LaneType("lanes(bool)", ir.IntType(1))

OF_SCALAR: Final = {types.float32: FLOATS, types.int32: INTS, types.boolean: MASKS}
"""What a scalar spreads to."""


@register_model(LaneType)
class _LaneModel(models.PrimitiveModel):
    """Tell numba that lanes are an LLVM vector."""

    def __init__(self, manager: Any, lane_type: LaneType) -> None:
        super().__init__(manager, lane_type, ir.VectorType(lane_type.element, LANES))


def _lanes_of(value: Any) -> LaneType | None:
    """Return the lane type of a numba type: itself, or what a scalar spreads to."""
    return value if isinstance(value, LaneType) else OF_SCALAR.get(value)


def emit_spread(builder: Any, value: Any, value_type: Any) -> Any:
    """Emit a vector: `value` itself, or a scalar repeated in all lanes."""
    if isinstance(value_type, LaneType):
        return value
    lane = OF_SCALAR[value_type]
    empty = ir.Constant(ir.VectorType(lane.element, LANES), ir.Undefined)
    index = ir.IntType(32)
    first = builder.insert_element(empty, value, ir.Constant(index, 0))
    zeros = ir.Constant(ir.VectorType(index, LANES), [0] * LANES)
    return builder.shuffle_vector(first, empty, zeros)


def _define_binary(
    function: Any, lane: LaneType, result: LaneType, emit: Callable[..., Any]
) -> None:
    """Give a Python operator its meaning where at least one operand is `lane`."""

    @intrinsic
    def apply(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a_type, b_type = signature.args
            return emit(
                builder,
                emit_spread(builder, args[0], a_type),
                emit_spread(builder, args[1], b_type),
            )

        return result(a, b), generate

    # Numba wants the signatures of an overload and of what it returns alike, with annotations.
    @overload(function)
    def choose(a, b):
        if lane in (a, b) and _lanes_of(a) is lane and _lanes_of(b) is lane:
            return lambda a, b: apply(a, b)
        return None


_define_binary(operator.add, FLOATS, FLOATS, lambda builder, a, b: builder.fadd(a, b))
_define_binary(operator.sub, FLOATS, FLOATS, lambda builder, a, b: builder.fsub(a, b))
_define_binary(operator.mul, FLOATS, FLOATS, lambda builder, a, b: builder.fmul(a, b))
_define_binary(operator.truediv, FLOATS, FLOATS, lambda builder, a, b: builder.fdiv(a, b))
# Ordered comparisons are false where a number is not one (NaN), as Python's are.
_define_binary(operator.gt, FLOATS, MASKS, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_define_binary(operator.ge, FLOATS, MASKS, lambda builder, a, b: builder.fcmp_ordered(">=", a, b))
_define_binary(operator.lt, FLOATS, MASKS, lambda builder, a, b: builder.fcmp_ordered("<", a, b))
_define_binary(operator.le, FLOATS, MASKS, lambda builder, a, b: builder.fcmp_ordered("<=", a, b))
_define_binary(operator.and_, MASKS, MASKS, lambda builder, a, b: builder.and_(a, b))
_define_binary(operator.and_, INTS, INTS, lambda builder, a, b: builder.and_(a, b))
_define_binary(operator.or_, INTS, INTS, lambda builder, a, b: builder.or_(a, b))
_define_binary(operator.add, INTS, INTS, lambda builder, a, b: builder.add(a, b))
_define_binary(operator.lshift, INTS, INTS, lambda builder, a, b: builder.shl(a, b))
# An arithmetic shift keeps the sign, as Python's does.
_define_binary(operator.rshift, INTS, INTS, lambda builder, a, b: builder.ashr(a, b))


def select(mask: Any, a: Any, b: Any) -> Any:
    """Return `a` where the mask holds and `b` elsewhere."""
    return a if mask else b


@intrinsic
def _select_lanes(typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """Emit a blend of two vectors."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, a_type, b_type = signature.args
        return builder.select(
            args[0], emit_spread(builder, args[1], a_type), emit_spread(builder, args[2], b_type)
        )

    return _lanes_of(a)(mask, a, b), generate  # type: ignore[misc]


@overload(select)
def _overload_select(mask, a, b):
    if mask is MASKS:
        return lambda mask, a, b: _select_lanes(mask, a, b)
    # Of one type only: numba would join an int32 and a float32 in a float64.
    if mask == types.boolean and a == b:
        return lambda mask, a, b: a if mask else b
    return None


@njit(forceinline=True)
def minimum(a: Any, b: Any) -> Any:
    """Return the smaller operand, `b` if they are equal."""
    return select(a < b, a, b)


@njit(forceinline=True)
def maximum(a: Any, b: Any) -> Any:
    """Return the larger operand, `b` if they are equal."""
    return select(a > b, a, b)


def root(x: Any) -> Any:
    """Return the square root of non-negative numbers."""
    return math.sqrt(x)


def floor_int(x: Any) -> Any:
    """Return the largest whole numbers that are not above `x`, as int32."""
    return np.int32(math.floor(x))


def to_int(x: Any) -> Any:
    """Return non-negative numbers without their fraction, as int32."""
    return np.int32(x)


def to_float(x: Any) -> Any:
    """Return whole numbers as float32."""
    return np.float32(x)


def _vector_function(builder: Any, name: str, value: Any) -> Any:
    """Emit a call of an LLVM function that maps a float vector to its like."""
    signature = ir.FunctionType(value.type, [value.type])
    function = cgutils.get_or_insert_function(builder.module, signature, f"{name}.v{LANES}f32")
    return builder.call(function, [value])


def _define_unary(
    function: Any, argument: LaneType, result: LaneType, emit: Callable[[Any, Any], Any]
) -> None:
    """Give a function of a scalar its meaning for lanes; scalars keep the function's own."""

    @intrinsic
    def apply(typingctx: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, args[0])

        return result(argument), generate

    def call(x: Any) -> Any:
        return apply(x)

    @overload(function)
    def choose(x: Any) -> Any:
        return call if x is argument else function


def _to_int(builder: Any, x: Any) -> Any:
    """Emit a conversion that cuts fractions off."""
    return builder.fptosi(x, ir.VectorType(INTS.element, LANES))


def _to_float(builder: Any, x: Any) -> Any:
    """Emit a conversion of whole numbers."""
    return builder.sitofp(x, ir.VectorType(FLOATS.element, LANES))


_define_unary(root, FLOATS, FLOATS, lambda builder, x: _vector_function(builder, "llvm.sqrt", x))
_define_unary(
    floor_int,
    FLOATS,
    INTS,
    lambda builder, x: _to_int(builder, _vector_function(builder, "llvm.floor", x)),
)
_define_unary(to_int, FLOATS, INTS, _to_int)
_define_unary(to_float, INTS, FLOATS, _to_float)


def gather(array: Any, index: Any) -> Any:
    """Return the elements of a flat array at the indices."""
    return array[index]


@intrinsic
def _gather_lanes(typingctx: Any, array: Any, index: Any) -> Any:
    """Emit one load for each lane: SSE and NEON have no instruction that gathers."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lane = OF_SCALAR[signature.args[0].dtype]
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        result = ir.Constant(ir.VectorType(lane.element, LANES), ir.Undefined)
        for k in range(LANES):
            place = ir.Constant(ir.IntType(32), k)
            at = builder.sext(builder.extract_element(args[1], place), ir.IntType(64))
            value = builder.load(builder.gep(data, [at]))
            result = builder.insert_element(result, value, place)
        return result

    return OF_SCALAR[array.dtype](array, index), generate


@overload(gather)
def _overload_gather(array, index):
    if index is INTS:
        return lambda array, index: _gather_lanes(array, index)
    return lambda array, index: array[index]


def _address(context: Any, builder: Any, array_type: Any, args: Any, vector: Any) -> Any:
    """Emit the address of element `args[1]` of the array `args[0]`, as one of a vector's type."""
    array = context.make_array(array_type)(context, builder, args[0])
    return builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())


@intrinsic
def spread(typingctx: Any, value: Any) -> Any:
    """Repeat a scalar in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit_spread(builder, args[0], signature.args[0])

    return OF_SCALAR[value](value), generate


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Read `LANES` elements of a flat array from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type = signature.args[0]
        vector = ir.VectorType(OF_SCALAR[array_type.dtype].element, LANES)
        value = builder.load(_address(context, builder, array_type, args, vector))
        value.align = 4  # the scalars' alignment is all that an array promises
        return value

    return OF_SCALAR[array.dtype](array, types.intp), generate


def _emit_store(
    context: Any, builder: Any, array_type: Any, args: Any, vector: Any, *, align: int
) -> Any:
    """Emit a store of a vector at element `args[1]` of the array `args[0]`."""
    written = builder.store(vector, _address(context, builder, array_type, args, vector.type))
    written.align = align
    return context.get_dummy_value()


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write `LANES` elements of a flat array from `index` on, in place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_store(context, builder, signature.args[0], args, args[2], align=4)

    return types.void(array, types.intp, value), generate


@intrinsic
def store_bytes(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the three low bytes of each lane to a byte array from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # One shuffle drops each lane's fourth byte, so that rows of RGB are stored without gaps.
        whole = builder.bitcast(args[2], ir.VectorType(ir.IntType(8), 4 * LANES))
        kept = [4 * lane + n for lane in range(LANES) for n in range(3)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(kept)), kept)
        packed = builder.shuffle_vector(whole, ir.Constant(whole.type, ir.Undefined), mask)
        return _emit_store(context, builder, signature.args[0], args, packed, align=1)

    return types.void(array, types.intp, value), generate


@intrinsic
def store_shorts(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the lanes as int16 to an array from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        packed = builder.trunc(args[2], ir.VectorType(ir.IntType(16), LANES))
        return _emit_store(context, builder, signature.args[0], args, packed, align=2)

    return types.void(array, types.intp, value), generate
